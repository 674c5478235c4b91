"""Small layers under names that say nothing, and a model of several of them, recorded in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import distprof
from distprof.merge.report import Report

WIDTH, BRANCHES, BATCH, LENGTH = 8, 4, 4, 12
TOKENS = BATCH * LENGTH


def ffn() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))


def record(folder: Path, model: nn.Module, **options: Any) -> Report:
    x, optimizer = torch.randn(BATCH, LENGTH, WIDTH), torch.optim.SGD(model.parameters(), lr=0.0)
    with distprof.record(out=folder, name="run", **({"warmup": 0, "timed": 3} | options)) as run:
        for _ in range(6):
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return distprof.load(run).report


class Model(nn.Module):
    def __init__(self, parts: dict[str, Callable[[], nn.Module]]) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.parts = nn.ModuleDict({name: make() for name, make in parts.items()})

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.stack([part(x).square().mean() for part in self.parts.values()]).sum()


def branches_of(part: nn.Module) -> nn.Module:
    """Returns the list, or the dict, of a part."""
    return next(one for one in part.modules() if isinstance(one, nn.ModuleList) or "a" in one._modules)


def branch_numel(part: nn.Module) -> int:
    return sum(p.numel() for p in next(iter(branches_of(part).children())).parameters())
