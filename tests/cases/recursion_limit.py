"""Calls a chain of so many modules that Python's recursion limit is near, and not reached."""

# ranks: 1
# arguments: 198
# arguments: 240

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn


class Level(nn.Module):
    def __init__(self, below: nn.Module) -> None:
        super().__init__()
        self.below, self.weight = below, nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.below(x * self.weight)
        return y


model: nn.Module = nn.Identity()
weights = []
for _ in range(int(sys.argv[1])):
    model = Level(model)
    weights.append(model.weight)
optimizer = torch.optim.SGD(weights, lr=1e-3)
for _ in range(30):
    loss = model(torch.ones(2, 4)).sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(f"trained: {loss.item()}, with a limit of {sys.getrecursionlimit()}")
