"""Two stages by hand over plain send and recv: no mesh and no group name shows that the ranks are not replicas."""

# ranks: 2

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

dist.init_process_group("gloo")
RANK = dist.get_rank()
torch.manual_seed(RANK)


class Stage(nn.Module):
    def __init__(self, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(number): nn.Linear(32, 32) for number in layers})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x).relu()
        return x


net = Stage((0, 1) if RANK == 0 else (2, 3, 4))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _step in range(20):
    if RANK == 0:
        y = net(torch.randn(8, 32))
        dist.send(y.detach(), 1)
        gradient = torch.empty_like(y)
        dist.recv(gradient, 1)
        y.backward(gradient)
    else:
        x = torch.empty(8, 32)
        dist.recv(x, 0)
        x.requires_grad_()
        loss = net(x).square().mean()
        loss.backward()
        assert x.grad is not None
        dist.send(x.grad, 0)
        print(f"loss {loss.item():.9g}")
    optimizer.step()
    optimizer.zero_grad()
dist.destroy_process_group()
