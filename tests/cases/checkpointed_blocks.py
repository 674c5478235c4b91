"""Activation checkpointing, reentrant or not, with dropout, nested (pytorch#134242)."""

# ranks: 1
# arguments: reentrant
# arguments: new
import sys

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

REENTRANT = sys.argv[1] == "reentrant"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(32, 16))
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + checkpoint(self.mlp, self.norm(x), use_reentrant=REENTRANT)


torch.manual_seed(0)
blocks = nn.ModuleList(Block() for _ in range(3))
head = nn.Linear(16, 4)
optimizer = torch.optim.SGD([*blocks.parameters(), *head.parameters()], lr=0.1)
for step in range(12):
    x = torch.randn(4 if step != 5 else 7, 16, requires_grad=True)
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=REENTRANT)
    loss = head(x).square().mean()
    loss.backward()
    print(step, loss.item(), [None if p.grad is None else p.grad.sum().item() for p in blocks.parameters()][:4])
    optimizer.step()
    optimizer.zero_grad()
