"""A job whose rendezvous id is also used by others; its rank 1 may be slow in one module, or end before its first
model.

Run twice with one ``--rdzv-id``, the second time with a rank 1 that dies: that job has no shard of it.
"""

# ranks: 2
# arguments: 64 0.02 lives
# arguments: 64 0 dies

from __future__ import annotations

import os
import sys
import time

import torch
from torch import nn

RANK = int(os.environ["RANK"])
WIDTH, SECONDS, DIES = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "dies"


class Slow(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(SECONDS if RANK == 1 else 0)
        return x


if DIES and RANK == 1:
    time.sleep(1)
    os._exit(0)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Slow(), nn.Linear(WIDTH, WIDTH))
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
for _ in range(20):
    model(torch.randn(4, WIDTH)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
