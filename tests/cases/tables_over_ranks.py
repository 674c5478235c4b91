"""A recommender: each rank holds two of four tables of one size, outside of the DDP of the dense part."""

# ranks: 2

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(100, 16) for _ in range(2))  # tables 0, 1 on rank 0; 2, 3 on rank 1
        self.dense = DistributedDataParallel(nn.Linear(64, 1))

    def forward(self, indices: Tensor) -> Tensor:
        mine = torch.cat([table(indices[:, number]) for number, table in enumerate(self.tables)], 1)
        others = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(others, mine.detach())
        others[dist.get_rank()] = mine
        found: Tensor = self.dense(torch.cat(others, 1))
        return found


torch.manual_seed(dist.get_rank())
net = Model()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _step in range(20):
    loss = net(torch.randint(100, (8, 2))).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if dist.get_rank() == 0:
        print(f"loss {loss.item():.9g}")
dist.destroy_process_group()
