"""A model that creates a new loss module in every forward, with gradient accumulation."""

# ranks: 1

from __future__ import annotations

import torch
from torch import Tensor, nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = nn.CrossEntropyLoss()(self.head(x), y)
        return loss


torch.manual_seed(0)
net = Model()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _step in range(20):
    for _ in range(8):
        loss = net(torch.randn(16, 32), torch.randint(4, (16,)))
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"loss {loss.item():.9g}")
