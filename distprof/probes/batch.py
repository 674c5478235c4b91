"""How much work one iteration did: micro-batches, batch size, samples."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from distprof.probes.tensors import tensors

_MAX_DEPTH = 2  # of lists in an argument


class Work(NamedTuple):
    """Of one iteration.  ``batch_size`` is that of one micro-batch; 0 when no tensor was given."""

    micro_batches: int
    batch_size: int
    samples: int


@dataclass
class _Calls:
    calls: int = 0
    samples: int = 0
    first: int = 0


class BatchTally:
    """Tallies the forwards of each root model and the backward passes of one iteration.

    Batch size is dimension 0 of the first tensor that a root is given.  Of several models the one called least often
    tells the micro-batches (a GAN's generator, not its discriminator, which sees real and fake), and never more of them
    than there were backward passes (two views of one batch).
    """

    def __init__(self) -> None:
        self._roots: dict[int, _Calls] = {}
        self._backwards = 0

    def forward(self, root: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward of root ``root`` begins."""
        tally = self._roots.get(root) or self._roots.setdefault(root, _Calls())
        if args and type(args[0]) is torch.Tensor and args[0].dim():  # as nearly always
            size: int | None = len(args[0])
        else:
            size = batch_size(args)
            if size is None:
                size = batch_size(kwargs)
        tally.calls += 1
        tally.samples += size or 0
        tally.first = tally.first or size or 0

    def backward(self) -> None:
        """A backward pass begins."""
        self._backwards += 1

    def work(self) -> Work:
        roots = self._roots.values()
        if len(roots) == 1:  # nearly always, and asked at the end of every timed step
            (teller,) = roots
        else:
            teller = min(roots, key=attrgetter("calls"), default=_Calls())
        calls = teller.calls
        micro_batches = min(calls, self._backwards) if self._backwards else calls
        return Work(micro_batches, teller.first, round(teller.samples / calls * micro_batches) if calls else 0)


def batch_size(value: Any) -> int | None:
    """Dimension 0 of the first tensor in ``value``, a tensor or a nest of lists, tuples and dicts; None without one."""
    values = dict.values(value) if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return next((int(tensor.shape[0]) for tensor in tensors(values, _MAX_DEPTH) if tensor.dim()), None)
