"""Modules return a tuple of one, a named tuple, a dataclass, None: types stay the same (pytorch#111809)."""

# ranks: 1
# arguments:
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn


class Pair(NamedTuple):
    out: torch.Tensor
    extra: Any = None


@dataclass
class Output:
    logits: torch.Tensor


class One(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return (super().forward(x),)


class Named(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return Pair(super().forward(x))


class Data(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return Output(super().forward(x))


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, out: list[torch.Tensor]) -> None:
        out.append(self.inner(x))


torch.manual_seed(0)
one, named, data, nothing = One(8, 8), Named(8, 8), Data(8, 8), Nothing()
model = nn.ModuleList([one, named, data, nothing])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(12):
    x = torch.randn(4, 8)
    a = one(x)
    b = named(a[0])
    c = data(b.out)
    box: list[torch.Tensor] = []
    nothing(c.logits, box)
    loss = box[0].square().mean()
    loss.backward()
    print(
        step,
        type(a),
        len(a),
        type(b),
        type(c),
        loss.item(),
        type(box[0].grad_fn).__name__,
        type(a[0].grad_fn).__name__,
    )
    optimizer.step()
    optimizer.zero_grad()
