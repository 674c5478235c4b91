"""Lightning Fabric: its wrapper holds the model twice."""

# ranks: 2
# stack: lightning

from __future__ import annotations

import torch
from lightning.fabric import Fabric
from torch import nn

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
net, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
for _step in range(20):
    loss = net(torch.randn(8, 16)).square().mean()
    fabric.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    if fabric.global_rank == 0:
        print(f"loss {loss.item():.9g}")
