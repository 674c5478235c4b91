"""A compiled model: the work of each module inside it cannot be separated from the whole."""
# ranks: 1
# arguments: aot_eager
# arguments: inductor

import sys

import torch
from torch import nn

torch.manual_seed(0)
layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
net = torch.compile(layers, backend=sys.argv[1])
optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
for _step in range(20):
    loss = net(torch.randn(16, 64)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print("loss", loss.item())
