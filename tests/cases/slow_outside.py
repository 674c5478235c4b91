"""Tensor parallel; one rank is slow outside of any module: its peer waits for it in a module's collective.

``named``: by torch's own API over a named mesh.  ``plain``: by hand, over groups that nothing tells the purpose of.
"""

# ranks: 6
# arguments: named
# arguments: plain

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

NAMED = sys.argv[1] == "named"
mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]) // 2, 2), mesh_dim_names=("dp", "tp") if NAMED else None)
replicas, pair = mesh.get_group(0), mesh.get_group(1)


class Reduce(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        dist.all_reduce(y, group=pair)
        return x + (y - x).detach()


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
if NAMED:
    parallelize_module(net, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
else:  # as many scripts do it
    net.append(Reduce())
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(20):
    if dist.get_rank() == 3 and step < 10:
        time.sleep(0.4)  # more than ranks wait for a core where there are few
    torch.manual_seed(step)
    loss = net(torch.randn(16, 64)).square().mean()
    loss.backward()
    for parameter in net.parameters():
        gradient = parameter.grad
        dist.all_reduce(gradient.to_local() if isinstance(gradient, DTensor) else gradient, group=replicas)
    optimizer.step()
    optimizer.zero_grad()
    if dist.get_rank() == 0:
        print(f"loss {loss.item():.9g}")
dist.destroy_process_group()
