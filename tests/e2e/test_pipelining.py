"""Tests of torch.distributed.pipelining on two real ranks: shape inference is not counted, micro-batches are."""

from __future__ import annotations

import numpy as np
import pytest
from support.scripts import NewWorkplace, Workplace

from distprof.records import Counts, Error, Step

#: Its ranks are forks, which have imported torch once.  In both runs the second step is counted; after the first and
#: before the fourth shapes are inferred.
SCRIPT = """
import os
import distprof
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.multiprocessing import start_processes

class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
    def forward(self, x):
        return self.second(self.first(x).relu())

def train(rank, kind):
    model = Part()
    stage = PipelineStage(model, rank, 2, torch.device("cpu"))
    schedule = kind(stage, 4, loss_fn=nn.functional.mse_loss)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.ones(8, 8)
    for step in range(6):
        optimizer.zero_grad()
        schedule.step(x) if rank == 0 else schedule.step(target=x)
        optimizer.step()
        if step in (0, 2):
            with torch.no_grad():
                schedule.eval(x) if rank == 0 else schedule.eval(target=x)

def main(rank):
    dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meeting", rank=rank, world_size=2)
    for name, kind in {"1F1B": Schedule1F1B, "GPipe": ScheduleGPipe}.items():
        with distprof.record(name=name, warmup=1, timed=3):
            train(rank, kind)
        dist.barrier()
    dist.destroy_process_group()

start_processes(main, nprocs=2, start_method="fork")
"""
LAYER = 8 * 8 * 16  # MACs of either layer on the whole batch


@pytest.fixture(scope="module")
def place(new_workplace: NewWorkplace) -> Workplace:
    """Returns the workplace in which two ranks have run both schedules."""
    place = new_workplace().forking()
    place.write("pipe.py", SCRIPT, prelude="")
    ended = place.start("python", "pipe.py").wait()
    assert ended.code == 0, ended.err
    return place


@pytest.mark.parametrize("schedule", ["1F1B", "GPipe"])
def test_each_stage_counts_its_micro_batches_and_nothing_else(place: Workplace, schedule: str) -> None:
    shards = place.shards(schedule)
    assert len(shards) == 2
    for rank, shard in enumerate(shards):
        assert not [record for record in shard.records if isinstance(record, Error)]
        (counts,) = (record for record in shard.records if isinstance(record, Counts))
        steps = [record for record in shard.records if isinstance(record, Step)]
        assert (counts.iteration, [step.iteration for step in steps]) == (1, [2, 3, 4, 5])
        recorded: list[Counts | Step] = [counts, *steps]
        assert {(one.micro_batches, one.samples) for one in recorded} == {(4, 8)}
        assert {tuple(one.calls.tolist()) for one in recorded} == {(4, 4, 4)}
        assert counts.forward_macs.tolist() == [0, LAYER, LAYER]
        first = LAYER if rank == 0 else 2 * LAYER  # the first stage's input needs no gradient
        assert counts.backward_macs.tolist() == [0, first, 2 * LAYER]
        assert not np.any(counts.recompute_macs)
