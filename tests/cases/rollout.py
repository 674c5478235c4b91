"""Policy gradient: twenty forwards of one sample each, with the environment between them, and one backward."""
# ranks: 1

import time

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Linear(4, 2)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for _episode in range(20):
    log_probs = []
    for _t in range(20):
        dist = torch.distributions.Categorical(net(torch.randn(1, 4)).softmax(1))
        log_probs.append(dist.log_prob(dist.sample()))
        time.sleep(0.002)  # the environment
    (-torch.cat(log_probs)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
