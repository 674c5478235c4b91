"""A recurrence over so many calls of a module in each step: long graphs must not be freed by recursion.

The first argument is the number of ops in a call, the others are the numbers of calls.
"""
# ranks: 1
# arguments: 5 10 10 12000 10 10
# arguments: 1 10 10 60000 10 10
# event: 2

import os
import resource
import sys

import torch
from torch import nn

if "STACK_MIB" in os.environ:  # a quarter of the steps then overflow it
    resource.setrlimit(
        resource.RLIMIT_STACK, (int(os.environ["STACK_MIB"]) << 20, resource.getrlimit(resource.RLIMIT_STACK)[1])
    )


class Cell(nn.Module):
    """The smallest module whose every call adds a path of nodes."""

    def __init__(self, ops: int) -> None:
        super().__init__()
        self.ops = ops
        self.scale = nn.Parameter(torch.tensor(0.99999))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        for _ in range(self.ops):
            h = h * self.scale
        return h


class Recurrence(nn.Module):
    def __init__(self, ops: int) -> None:
        super().__init__()
        self.cell = Cell(ops)

    def forward(self, h: torch.Tensor, calls: int) -> torch.Tensor:
        for _ in range(calls):
            h = self.cell(h)
        return h


ops, *lengths = map(int, sys.argv[1:])
model = Recurrence(ops)
optimizer = torch.optim.SGD(model.parameters(), 1e-6)
for calls in lengths:
    optimizer.zero_grad()
    loss = model(torch.ones(()), calls) * 1000
    loss.backward()
    print(calls, float(loss).hex(), *(float(p.grad).hex() for p in model.parameters() if p.grad is not None))
    optimizer.step()
    del loss
