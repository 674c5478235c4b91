"""Layers kept in a plain Python list, not in an nn.ModuleList: each of them is a model of its own."""
# ranks: 1
# arguments: 40
# arguments: 400

import sys

import torch
from torch import nn

torch.manual_seed(0)
layers = [nn.Linear(4, 4) for _ in range(int(sys.argv[1]))]
optimizer = torch.optim.SGD([parameter for layer in layers for parameter in layer.parameters()], lr=1e-3)
for step in range(20):
    x = torch.randn(2, 4)
    for layer in layers:
        x = layer(x)
    loss = x.square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(step, loss.item(), flush=True)
