"""torch.cond compiles itself: the gradients of its branch's parameters must not depend on when a new shape arrives."""
# ranks: 1
# arguments: 1 hidden
# arguments: 1 input
# arguments: 3 hidden
# arguments: 5 hidden
# arguments: 5 input

import sys

import torch
from torch import nn

WIDTH = 8


class Branches(nn.Module):
    """``condition``: what the branches are given, the hidden state or the input."""

    def __init__(self, condition: str) -> None:
        super().__init__()
        self.condition = condition
        self.first, self.then, self.other = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def of_first(self, y: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.then(y)
        return output

    def of_second(self, y: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.other(y)
        return output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.first(x)
        given = hidden if self.condition == "hidden" else x
        always = given.sum() > -1e9
        chosen: torch.Tensor = torch.cond(always, self.of_first, self.of_second, (given,))
        return hidden + chosen


arrives, condition = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
model = Branches(condition)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(12):
    model(torch.rand(9 if step == arrives else 4, WIDTH)).sum().backward()
    print(step, [None if p.grad is None else float(p.grad.norm()).hex() for p in model.parameters()])
    optimizer.step()
    optimizer.zero_grad()
