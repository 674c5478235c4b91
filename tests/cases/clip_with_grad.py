"""Gradients are averaged and clipped by hand after backward, in grad mode: this work belongs to the update."""
# ranks: 1
# event: 2

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Linear(1000, 1000, bias=False)  # 1,000,000 parameters
optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
for _step in range(6):
    net(torch.randn(4, 1000)).square().mean().backward()
    for p in net.parameters():
        assert p.grad is not None
        p.grad /= 2  # 1 flop an element: averaging by hand, as DeepSpeed and minimal DDPs do
        p.grad *= 1.0 / (p.grad.norm() + 1.0)  # 3 flops an element: clipping
    optimizer.step()
    optimizer.zero_grad()
