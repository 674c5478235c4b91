"""A small training whose results must be bitwise the same with and without a recorder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from support.recording import record
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distprof.records import Counts, End, Error, Step

STEPS = 6
Trace = list[Any]


class Block(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Model(nn.Module):
    def __init__(
        self, wrap: Callable[[nn.Module, Tensor], Tensor] = lambda block, x: block(x), blocks: int = 2
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.drop = nn.Dropout(0.1)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.wrap(block, x)
        return self.drop(x)


def train(
    net: Callable[..., Tensor],
    model: nn.Module,
    between: Callable[[int], object] = lambda step: None,
    longer: int = -1,
    **options: Any,
) -> Trace:
    """Losses of a few steps, what ``between`` returned in each of them, between forward and backward, and gradients of
    every parameter.  ``longer``: the step in which there is one row more.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trace: Trace = []
    for step in range(STEPS):
        loss = net(torch.randn(3 + (step == longer), 8), **options).square().mean()
        trace += [float(loss).hex(), between(step)]
        loss.backward()
        trace.append([None if p.grad is None else _bytes(p.grad) for p in model.parameters()])
        optimizer.step()
        optimizer.zero_grad()
    return trace


def _bytes(gradient: Tensor) -> bytes:
    local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
    return local.detach().contiguous().numpy().tobytes()


def assert_same(tmp_path: Path, job: Callable[[], Trace]) -> None:
    """``job`` gives the same watched (one counted step, two timed ones, from the second on) as unwatched."""
    torch.manual_seed(0)
    alone = job()
    traces: list[Trace] = []
    torch.manual_seed(0)
    seen = record(tmp_path, lambda: traces.append(job()), warmup=1, count=True, timed=2)
    assert traces == [alone]
    assert not seen.of(Error)
    assert seen.one(End).reason == "window complete"
    assert len(seen.of(Step)) == 2
    assert seen.one(Counts).forward_macs.sum() > 0
