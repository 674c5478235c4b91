"""A model that overrides ``parameters()``, as in older GAN code: it returns a list, which is no iterator."""

# ranks: 1

from __future__ import annotations

import torch
from torch import Tensor, nn


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def parameters(self, recurse: bool = True) -> list[nn.Parameter]:  # type: ignore[override]
        return list(self.linear.parameters())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


torch.manual_seed(0)
model = Wrapper()
optimizer = torch.optim.SGD(model.parameters(), 1e-2)
final = 0.0
for _ in range(30):
    loss = model(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    final = loss.item()
print("trained", final)
