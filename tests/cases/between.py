"""The next batch is fetched between a model's forward and its backward, as in nanoGPT: forward is time in modules."""
# ranks: 1

import time

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Linear(64, 64)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)


def get_batch() -> torch.Tensor:
    time.sleep(0.02)
    return torch.randn(8, 64)


x = get_batch()
for _step in range(20):
    loss = net(x).square().mean()
    x = get_batch()  # prefetched while the device is busy
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
