"""A job of four ranks that hangs, or seems to: ``train.py FAULT SECONDS``.

At iteration FAULT_AT, or in the first one, rank 3 does what FAULT names; SECONDS is the floor of the limits.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

FAULT_AT, LAST = 30, 45
ODD = 3
_FOREVER_S = 1e6

dist: Any = distributed  # type checkers miss what it exports


def load_batch(fault: str, iteration: int) -> Tensor:
    if fault == "asleep in data loading" and iteration == FAULT_AT and dist.get_rank() == ODD:
        time.sleep(_FOREVER_S)
    return torch.ones(2, 4)


def save_checkpoint(seconds: float) -> None:
    time.sleep(seconds)


def call_other_op() -> None:
    """The others call all_reduce; a broadcast of another rank's tensor waits for that rank."""
    if dist.get_rank() == ODD:
        dist.broadcast(torch.zeros(8), src=0)
    else:
        dist.all_reduce(torch.zeros(8))


def call_other_size() -> None:
    """Gloo sends pieces of 1 MiB: rank 3 has fewer, and goes on; other sizes would abort the process."""
    dist.all_reduce(torch.zeros(1 << 22 if dist.get_rank() == ODD else 1 << 23))


def leave() -> None:
    """Ends this rank, whose connections a child keeps open, as a worker would that the rank has started."""
    if dist.get_rank() == ODD:
        launcher = os.getppid()
        if not os.fork():
            while Path(f"/proc/{launcher}").exists() and os.getppid() != 0 and not Path("stop").exists():
                time.sleep(0.2)
            os._exit(0)
        sys.exit(0)


def enter_groups_in_opposite_order(first: Any, second: Any) -> None:
    order = {0: (first, second), 1: (second, first)}.get(dist.get_rank(), ())
    for group in order:
        dist.all_reduce(torch.zeros(8), group=group)


def hang(fault: str, seconds: float, groups: Any) -> None:
    """What rank 3, or each rank, does in the iteration of the fault."""
    is_odd = dist.get_rank() == ODD
    if fault == "stopped" and is_odd:
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "holds the lock" and is_odd:
        sum(itertools.repeat(0))
    elif fault == "endless loop" and is_odd:
        while True:
            pass
    elif fault == "other op":
        call_other_op()
    elif fault == "other size":
        call_other_size()
    elif fault == "left":
        leave()
    elif fault == "opposite order":
        enter_groups_in_opposite_order(*groups)
    elif fault == "slow checkpoint":
        if dist.get_rank() == 0:
            save_checkpoint(3 * seconds)
        dist.barrier()


def grid() -> nn.Module:
    """Returns a model that all-reduces over the rank's row and column of a grid, 2 x 2: rank 3 is missed by 1 and 2."""
    rows = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    columns = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    rank = dist.get_rank()

    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            dist.all_reduce(torch.zeros(8), group=rows[rank // 2])
            dist.all_reduce(torch.zeros(8), group=columns[rank % 2])
            return super().forward(x)

    return Model(4, 4)


def main() -> None:
    fault, seconds = sys.argv[1], float(sys.argv[2])
    dist.init_process_group("gloo")
    scratch = Path(f"pid{dist.get_rank()}.new")
    scratch.write_text(str(os.getpid()))
    scratch.rename(f"pid{dist.get_rank()}")
    groups = [dist.new_group([0, 1], group_desc=name) for name in ("first", "second")]
    on_grid = fault == "asleep on a grid"
    model = grid() if on_grid else nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for iteration in range(LAST):
        if iteration == FAULT_AT:
            hang(fault, seconds, groups)
        if on_grid and iteration == FAULT_AT and dist.get_rank() == ODD:
            time.sleep(_FOREVER_S)
        loss = model(load_batch(fault, iteration)).sum()
        if fault == "slow first step" and iteration == 0 and dist.get_rank() == ODD:
            time.sleep(2 * seconds)  # after the model's first call, from which on the rank is watched
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    del model, optimizer
    dist.destroy_process_group()


main()
