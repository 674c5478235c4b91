"""The script of the jobs of several ranks; it knows nothing of distprof.

torchrun ... rank.py cuda nccl ddp losses.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

ITERATIONS = 12
_WIDTH = 128
PARAMETERS = 3 * (_WIDTH * _WIDTH + _WIDTH)


def main(device_type: str, backend: str, wrap: str, losses_file: Path) -> None:
    device = torch.device(device_type, 0) if device_type == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    torch.manual_seed(0)
    model = _wrapped(nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH) for _ in range(3))).to(device), device, wrap)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    x = torch.randn(32, _WIDTH, device=device) + dist.get_rank()
    losses = []
    for _ in range(ITERATIONS):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if dist.get_rank() == 0:
        losses_file.write_text(json.dumps(losses), encoding="utf-8")
    # gloo's thread takes Python's lock to forget the last all-reduce.  A model that is freed before waits for this
    # thread without end, and a process that ends before aborts.
    time.sleep(0.2)
    dist.destroy_process_group()


def _wrapped(model: nn.Module, device: torch.device, wrap: str) -> nn.Module:
    if wrap == "ddp":
        return nn.parallel.DistributedDataParallel(model, [device.index] if device.type == "cuda" else None)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (int(os.environ["WORLD_SIZE"]),))
    for layer in model.children():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)  # in place
    return model


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
