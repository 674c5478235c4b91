"""LBFGS evaluates its closure several times on one batch: a step of up to five forwards sees 20 samples."""
# ranks: 1

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
optimizer = torch.optim.LBFGS(net.parameters(), lr=0.01, max_iter=5, tolerance_grad=0, tolerance_change=0)
for _step in range(20):
    x, target = torch.randn(20, 16), torch.randn(20, 4)

    def closure(x: torch.Tensor = x, target: torch.Tensor = target) -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), target)
        loss.backward()
        return loss

    optimizer.step(closure)
