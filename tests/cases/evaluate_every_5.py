"""Every fifth iteration of training begins with an evaluation of 30 ms: throughput is lower than the other iterations
suggest.
"""
# ranks: 1

import time

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Linear(32, 32)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(30):
    if step % 5 == 0:
        with torch.no_grad():
            for _ in range(3):
                net(torch.randn(64, 32))
                time.sleep(0.01)  # metrics
            net(torch.randn(64, 32))
    net(torch.randn(16, 32)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
