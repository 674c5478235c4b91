"""Asks a helper in another Python (its argument), which has no torch, and reads its whole output, with stderr."""

# ranks: 1
# arguments: /usr/bin/python3

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

answer = subprocess.run(
    [sys.argv[1], "-c", "print(42)"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
).stdout
print("the helper said", int(answer))
torch.manual_seed(0)
model = nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
for _ in range(30):
    loss = model(torch.randn(4, 8)).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(f"trained: {loss.item()}")
