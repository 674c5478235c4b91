"""FSDP 2 over activation checkpointing: it replaces the wrapper's class by a subclass with another name."""

# ranks: 2

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("fsdp",))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_of_this_block, self.feed_forward_of_this_block = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.feed_forward_of_this_block(self.attention_of_this_block(x).relu())
        return y


torch.manual_seed(0)
net = nn.Sequential(*(checkpoint_wrapper(Block()) for _ in range(3)))
for block in net:
    fully_shard(block, mesh=mesh)
fully_shard(net, mesh=mesh)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _step in range(20):
    loss = net(torch.randn(16, 64)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if dist.get_rank() == 0:
        print(f"loss {loss.item():.9g}")
dist.destroy_process_group()
