"""Training without torch.optim: 40 steps of SGD by hand, then an evaluation, then a copy of the model is tested."""
# ranks: 1
# event: 40

import copy

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
for step in range(40):
    loss = net(torch.randn(32, 64)).square().mean()
    net.zero_grad()
    loss.backward()
    for parameter in net.parameters():
        parameter.data.add_(parameter.grad, alpha=-0.1)  # type: ignore[arg-type]
    print(step, loss.item(), flush=True)
best = copy.deepcopy(net)
with torch.no_grad():
    for _ in range(10):
        print(net(torch.randn(4, 64)).sum().item(), flush=True)
    for _ in range(30):
        print(best(torch.randn(4, 64)).sum().item(), flush=True)
