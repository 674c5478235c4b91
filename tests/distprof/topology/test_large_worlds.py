"""Single ranks of a world of 1,024, whose process groups do nothing: their places, and exact totals."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path

import torch
from support.recording import record
from support.worlds import rank_of
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run
from distprof.run_folder import RunFolder

STAGES, REPLICAS, WAYS = 8, 16, 8
WIDTH, HIDDEN, BATCH, LAYERS = 16, 64, 4, 2


def train_sharded(steps: int) -> None:
    mesh = init_device_mesh("cpu", (STAGES, REPLICAS, WAYS), mesh_dim_names=("pp", "dp", "tp"))
    blocks = [
        nn.Sequential(nn.Linear(WIDTH, HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, WIDTH, bias=False))
        for _ in range(LAYERS)
    ]
    for block in blocks:
        parallelize_module(block, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(block, mesh=mesh["dp"])
    model = nn.Sequential(*blocks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(steps):
        model(torch.ones(BATCH, WIDTH)).sum().backward()
        optimizer.step()


def record_rank(rank: int, folder: Path) -> None:
    with rank_of(STAGES * REPLICAS * WAYS, rank):
        record(folder / str(rank), lambda: train_sharded(4), count=True, timed=2)
    shard = RunFolder(folder / str(rank)).shard_path(rank, 0)
    shard.rename(folder / shard.name)


def test_ranks_of_a_large_world(tmp_path: Path) -> None:
    """Each rank has a process of its own: torch remembers the groups of an earlier world."""
    ranks = (517, 1023)
    for rank in ranks:
        process = get_context("fork").Process(target=record_rank, args=(rank, tmp_path))
        process.start()
        process.join(300)
        assert process.exitcode == 0
    report = analyse(load_run(tmp_path))
    sizes = {"pp": STAGES, "dp": REPLICAS, "tp": WAYS}
    assert report.run.world_size == 1024 and {axis: report.topology.sizes[axis] for axis in sizes} == sizes
    assert tuple(row.rank for row in report.ranks) == ranks
    elements = LAYERS * 2 * WIDTH * HIDDEN // WAYS  # of one stage, cut over tp
    for row in report.ranks:
        place = {"pp": row.rank // 128, "dp": row.rank // 8 % 16, "tp": row.rank % 8}
        assert row.complete and {axis: row.coordinates[axis] for axis in place} == place
        assert (row.params, row.fwd_macs) == (elements, BATCH * elements)
