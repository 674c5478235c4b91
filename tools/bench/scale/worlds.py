"""Measures one rank of a large world in this process: its process groups are torch's fakes, which do nothing.

python -m bench.scale.worlds 8 16 8              prints a :class:`WorldRank` as JSON
python -m bench.scale.worlds 8 16 8 --plain      the same without a recorder
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import prod

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from bench.rank import resident_bytes
from bench.recorders import checked
from distprof.model.topology import RankTopology

_LAYERS, _WIDTH = 4, 64
_WARMUP, _TIMED = 2, 4
_STEPS = _WARMUP + 1 + 1 + _TIMED + 1  # with the counted step, the one that settles, and one after the window


@dataclass(frozen=True)
class WorldRank:
    """``topology_s``: processor seconds in which the first forward found the topology; None without a recorder."""

    topology_s: float | None
    resident_bytes: int


def measured(shape: tuple[int, int, int], *, record: bool) -> WorldRank:
    """Trains on one rank of a world of ``shape``: pipeline stages, data-parallel and tensor-parallel ranks."""
    dist.init_process_group("fake", rank=prod(shape) - 1, world_size=prod(shape), store=FakeStore())
    window = {"step": _TIMED + 1, "counts": 1}
    recorder = checked(window, warmup=_WARMUP, timed=_TIMED) if record else nullcontext()
    with recorder, _timed_topology() as taken:
        model, optimizer = _sharded_model(shape)
        first: list[float] = []
        for _ in range(_STEPS):
            model(torch.ones(8, _WIDTH)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            first = first or list(taken)
        gc.collect()
        return WorldRank(sum(first) if record else None, resident_bytes())


def _sharded_model(shape: tuple[int, int, int]) -> tuple[nn.Module, torch.optim.Optimizer]:
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("pp", "dp", "tp"))
    blocks = [nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)) for _ in range(_LAYERS)]
    for block in blocks:
        parallelize_module(block, mesh["tp"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
        fully_shard(block, mesh=mesh["dp"])
    model = nn.Sequential(*blocks)
    return model, torch.optim.AdamW(model.parameters())


@contextmanager
def _timed_topology() -> Iterator[list[float]]:
    """Yields the processor seconds of each time that the topology is found."""
    original, taken = RankTopology.topology, list[float]()

    def timed(self: RankTopology) -> object:
        began = time.process_time()
        found = original(self)
        taken.append(time.process_time() - began)
        return found

    RankTopology.topology = timed  # type: ignore[method-assign,assignment]
    try:
        yield taken
    finally:
        RankTopology.topology = original  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", type=int, nargs=3, help="pipeline stages, data-parallel and tensor-parallel ranks")
    parser.add_argument("--plain", action="store_true", help="without a recorder")
    arguments = parser.parse_args()
    print(json.dumps(asdict(measured(tuple(arguments.shape), record=not arguments.plain))))


if __name__ == "__main__":
    main()
