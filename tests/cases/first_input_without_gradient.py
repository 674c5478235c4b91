"""A module whose first input needs no gradient, with the script's own backward hooks, in-place changes
(pytorch#57944, pytorch#61519).
"""

# ranks: 1
# arguments:
from typing import Any

import torch
from torch import nn


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y = self.lin(x)
        y.mul_(mask)
        y[:, :4].add_(1)
        return y.relu_().view(-1, 2, 4).flatten(1)


seen: list[Any] = []


def look(module: nn.Module, inputs: Any, outputs: Any) -> None:
    seen.append((type(module).__name__, [None if g is None else g.sum().item() for g in (*inputs, *outputs)]))


torch.manual_seed(0)
mix, head = Mix(), nn.Linear(8, 2)
mix.register_full_backward_hook(look)
optimizer = torch.optim.SGD([*mix.parameters(), *head.parameters()], lr=0.1)
for step in range(12):
    x = torch.randn(4, 8, requires_grad=True)
    out = mix(torch.ones(4, 8), x)
    loss = head(out).square().mean()
    loss.backward()
    print(step, loss.item(), None if x.grad is None else x.grad.sum().item(), out._version, seen.pop())
    optimizer.step()
    optimizer.zero_grad()
