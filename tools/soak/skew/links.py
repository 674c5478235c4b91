"""Slow links: the collectives of one group, or the messages of one pipeline, take longer on all of its ranks."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

_BUCKETS = 3  # of gradients, about, in these jobs
_ALL_REDUCES = 16  # of one tensor-parallel iteration


def slow_buckets(model: DistributedDataParallel, ms: float) -> None:
    """Delays the all-reduce of each bucket of gradients."""

    def hook(_state: object, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        averaged = bucket.buffer().div_(dist.get_world_size())
        future = dist.all_reduce(averaged, async_op=True).get_future()

        def delay(done: Any) -> torch.Tensor:
            time.sleep(ms / 1e3 / _BUCKETS)
            result: torch.Tensor = done.value()[0]
            return result

        delayed: torch.futures.Future[torch.Tensor] = future.then(delay)
        return delayed

    hook.__annotations__.clear()  # strings, which torch takes for wrong types
    model.register_comm_hook(None, hook)


def slow_all_reduces(ms: float) -> None:
    """Delays the functional all-reduces of this process: those of its tensor-parallel group."""
    import torch.distributed._functional_collectives as functional
    from torch.distributed.tensor import _collective_utils, placement_types

    original = functional.all_reduce

    def delayed(*arguments: Any, **options: Any) -> Any:
        result = functional.wait_tensor(original(*arguments, **options))
        time.sleep(ms / 1e3 / _ALL_REDUCES)
        return result

    functional.all_reduce = delayed
    for module in (_collective_utils, placement_types):
        if hasattr(module, "funcol"):
            module.funcol.all_reduce = delayed


def slow_messages(ms: float, messages: int) -> None:
    """Delays what this process receives from another stage, ``messages`` in an iteration."""
    module: Any = dist.distributed_c10d
    receive = module.irecv

    class Late:
        """A message that has come, but is late."""

        def __init__(self, work: Any) -> None:
            self._work = work

        def wait(self, *arguments: Any) -> bool:
            self._work.wait(*arguments)
            time.sleep(ms / 1e3 / messages)
            return True

        def is_completed(self) -> bool:
            return bool(self._work.is_completed())

    def delayed(*arguments: Any, **options: Any) -> Late:
        return Late(receive(*arguments, **options))

    module.irecv = delayed
    dist.irecv = delayed  # type: ignore[assignment]
