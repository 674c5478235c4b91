"""A recurrence unrolled in Python over a long sequence: its graph, of 100,000 nodes, must not be freed by recursion."""
# ranks: 1
# arguments: 7000
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
steps = int(sys.argv[1])
torch.manual_seed(0)
cell = nn.GRUCell(2, 2)
optimizer = torch.optim.SGD(cell.parameters(), 1e-3)
for _iteration in range(4):
    h, x = torch.zeros(1, 2), torch.ones(1, 2)
    for _ in range(steps):
        h = cell(x, h)
    h.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print("trained")
