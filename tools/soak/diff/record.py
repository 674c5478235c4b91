"""Records runs: ``python -m soak.diff.record FOLDER RUN...``; a run whose name ends with ``-slow`` has a slower module.

torch is imported once, and each rank is a fork of this process.  The job is a perceptron on two data-parallel ranks.
The slower module computes for 10 % more of the processor's time in each forward, and its work is counted the same.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import distprof
from soak.diff.forked_ranks import run_ranks

RANKS, WARMUP, TIMED = 2, 3, 120
SLOW_MODULE, SLOWER = "layers.2", 0.1
_WIDTH, _LAYERS, _BATCH = 192, 4, 96


class Block(nn.Module):
    """A layer whose own forward does the work, so that all of it is its self time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(_WIDTH, _WIDTH) / _WIDTH**0.5)
        self.slower = 0.0

    def forward(self, x: Tensor) -> Tensor:
        began = time.thread_time()
        out = x
        for _ in range(3):
            out = torch.tanh(out @ self.weight)
        until = time.thread_time() + self.slower * (time.thread_time() - began)
        while time.thread_time() < until:
            pass
        return out


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(_LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def train(folder: Path, name: str, rank: int) -> None:
    """Trains as ``rank`` of the run ``name``."""
    with distprof.record(out=folder, name=name, warmup=WARMUP, timed=TIMED):
        distributed: Any = dist  # type checkers miss what it exports
        distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
        torch.manual_seed(0)
        model = Perceptron()
        if name.endswith("-slow"):
            block = model.get_submodule(SLOW_MODULE)
            assert isinstance(block, Block)
            block.slower = SLOWER
        replica = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(replica.parameters(), lr=1e-3)
        for _ in range(WARMUP + 2 + TIMED + 1):
            optimizer.zero_grad()
            replica(torch.randn(_BATCH, _WIDTH)).square().mean().backward()
            optimizer.step()
        distributed.destroy_process_group()


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    for name in names:
        if not run_ranks(RANKS, partial(train, folder, name)):
            sys.exit(f"{name}: not all ranks ended well")
        print(name, flush=True)


if __name__ == "__main__":
    main()
