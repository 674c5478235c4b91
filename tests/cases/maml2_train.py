"""Second-order MAML: a model is called with plain tensors in place of its parameters; its own are never used.

What it computes with are differentiable functions of the parameters, and gradients of gradients reach these.
"""

# ranks: 1

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for _ in range(20):
    optimizer.zero_grad()
    total = torch.zeros(())
    for _ in range(2):
        slope = torch.rand(1)
        x = torch.randn(8, 1)
        y = slope * x
        weights = {name: value * 1.0 for name, value in net.named_parameters()}
        loss = (functional_call(net, {name: value * 1.0 for name, value in weights.items()}, (x,)) - y).pow(2).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        fast = {name: value - 0.1 * g for (name, value), g in zip(weights.items(), gradients, strict=True)}
        total = total + (functional_call(net, fast, (x,)) - y).pow(2).mean()
    total.backward()
    optimizer.step()
final = total.item()
print("done", final)
