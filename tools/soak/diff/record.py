"""Records runs: ``python -m soak.diff.record FOLDER RUN...``; a run whose name ends with ``-slow`` has a slower module.

torch is imported once, and each rank is a fork of this process.  The job is a perceptron on two data-parallel ranks.
The slower module computes for 10 % more of the processor's time in each forward, and its work is counted the same.
"""

from __future__ import annotations

import os
import time

os.environ.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from soak.forked_jobs.ranks import RecordedJob

RANKS, WARMUP, TIMED = 2, 3, 150
SLOW_MODULE, SLOWER = "layers.2", 0.1
_WIDTH, _LAYERS, _BATCH = 320, 8, 128


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


def build(name: str, rank: int) -> nn.Module:
    """Returns the model of a run."""
    model = Perceptron()
    if name.endswith("-slow"):
        block = model.get_submodule(SLOW_MODULE)
        assert isinstance(block, Block)
        block.slower = SLOWER
    return DistributedDataParallel(model)


if __name__ == "__main__":
    RecordedJob(RANKS, WARMUP, TIMED, (_BATCH, _WIDTH), build).main()
