"""Closes every descriptor that it did not open itself, as daemons do, and then opens its own files.

They get the numbers of the descriptors that were closed, whosoever those were.
"""

# ranks: 1
# arguments: 3
# arguments: 3 streams
# event: 1

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)


def train(steps: int) -> None:
    for _ in range(steps):
        model(torch.randn(4, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


train(1)  # a first step, as a sanity check
stdout = os.dup(1)
first = 0 if sys.argv[2:] else 3
os.closerange(first, stdout)
os.closerange(stdout + 1, 256)
with tempfile.TemporaryDirectory() as folder:
    files = [(Path(folder) / str(number)).open("wb", buffering=0) for number in range(int(sys.argv[1]))]
    for file in files:
        file.write(b"my checkpoint\n")
    train(30)
    for file in files:
        file.write(b"end of my checkpoint\n")
        file.close()
    for file in files:
        os.write(stdout, f"{Path(file.name).read_bytes()!r}\n".encode())
os.write(stdout, f"trained: {model.weight.sum().item()}\n".encode())
