"""What stages of real pipelines compute and wait, compared with what their scripts say that they computed.

The ranks are forks of one process.  A stage computes by sleeping: it needs no processor for it, and its script adds up
how long it slept.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.scripts import NewWorkplace, Workplace

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import StageRow
from distprof.records import Step

RANKS = 2
JOBS = ("gpipe", "1f1b", "interleaved", "zbv", "by_hand")
SCRIPT = """
import json, os, time
import distprof
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import (
    PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B, ScheduleZBVZeroBubble,
)
from torch.multiprocessing import start_processes

RANKS, MICRO, WIDTH, STEPS = 2, 4, 8, 6
SLEPT = {"forward": 0.0, "backward": 0.0}

def sleep(phase, seconds):
    "Computes: what a sleep really takes is counted."
    began = time.perf_counter()
    time.sleep(seconds)
    SLEPT[phase] += time.perf_counter() - began

class Compute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, seconds):
        ctx.seconds = seconds
        sleep("forward", seconds)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        sleep("backward", 2 * ctx.seconds)
        return gradient.clone(), None

class Slow(nn.Module):
    "Rank 1 computes half as long again as rank 0."
    def __init__(self, rank):
        super().__init__()
        self.linear, self.seconds = nn.Linear(WIDTH, WIDTH), 0.015 * (1 + rank / 2)

    def forward(self, x):
        return Compute.apply(self.linear(x), self.seconds)

def loss(y, target):
    return y.sum()

def single(schedule):
    def make(rank):
        model = Slow(rank)
        run = schedule(PipelineStage(model, rank, RANKS, torch.device("cpu")), MICRO, loss_fn=loss)
        return [model], run.step, rank == 0, rank == RANKS - 1
    return make

def several(schedule, numbers):
    def make(rank):
        models = [Slow(rank), Slow(rank)]
        stages = [PipelineStage(m, n, 4, torch.device("cpu")) for m, n in zip(models, numbers[rank])]
        run = schedule(stages, MICRO, loss_fn=loss)
        return models, run.step, 0 in numbers[rank], 3 in numbers[rank]
    return make

def by_hand(rank):
    "Posts all receives before it computes anything, and waits for each where it needs it."
    model = Slow(rank)
    def step(*inputs, **targets):
        ready = [torch.empty(1, WIDTH) for _ in range(MICRO)]
        posted = [dist.irecv(one, 1 - rank, tag=number) for number, one in enumerate(ready)]
        sent, outputs = [], []
        for number in range(MICRO):
            x = inputs[0][number:number + 1] if rank == 0 else ready[number]
            if rank == 1:
                posted[number].wait()
                x.requires_grad_()
            outputs.append((x, model(x)))
            if rank == 0:
                sent.append(dist.isend(outputs[-1][1].detach(), 1, tag=number))
            else:
                outputs[-1][1].sum().backward()
                sent.append(dist.isend(x.grad, 0, tag=number))
        if rank == 0:
            for number, (_, y) in enumerate(outputs):
                posted[number].wait()
                y.backward(ready[number])
        for work in sent:
            work.wait()
    return [model], step, rank == 0, rank == 1

JOBS = {
    "gpipe": single(ScheduleGPipe),
    "1f1b": single(Schedule1F1B),
    "interleaved": several(ScheduleInterleaved1F1B, [(0, 2), (1, 3)]),
    "zbv": several(ScheduleZBVZeroBubble, [(0, 3), (1, 2)]),
    "by_hand": by_hand,
}

def train(make, rank):
    torch.manual_seed(5)
    models, step, first, last = make(rank)
    optimizer = torch.optim.SGD([p for model in models for p in model.parameters()], lr=0.01)
    x, steps = torch.ones(MICRO, WIDTH), []
    for _ in range(STEPS):
        SLEPT.update(forward=0.0, backward=0.0)
        step(*([x] if first else []), **({"target": x} if last else {}))
        optimizer.step()
        optimizer.zero_grad()
        steps.append(dict(SLEPT))
    return steps

def main(rank):
    dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meeting", rank=rank, world_size=RANKS)
    distprof.set_topology(pp=RANKS)
    slept = {}
    for name, make in JOBS.items():
        with distprof.record(name=name, warmup=1, timed=3):
            slept[name] = train(make, rank)
    with open(f"slept{rank}.json", "w") as file:
        json.dump(slept, file)
    dist.barrier()
    dist.destroy_process_group()

start_processes(main, nprocs=RANKS, start_method="fork")
"""


@pytest.fixture(scope="module")
def place(new_workplace: NewWorkplace) -> Workplace:
    """Where two ranks have run all jobs."""
    place = new_workplace().forking()
    place.write("jobs.py", SCRIPT, prelude="")
    ended = place.start("python", "jobs.py").wait()
    assert ended.code == 0, ended.err
    return place


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_stage_computes_what_its_script_computes_and_waits_for_the_rest(place: Workplace, job: str) -> None:
    """Both stages post receives early, and one waits for the other, which computes half as long again."""
    shards = place.shards(job)
    rows = analyse(run_of_shards(shards)).pipeline
    assert [(row.stage, row.micro_batches) for row in rows] == [(0, 4), (1, 4)]
    for rank, row in enumerate(rows):
        slept = json.loads((place.folder / f"slept{rank}.json").read_text())[job]
        steps = [one for one in shards[rank].records if isinstance(one, Step)][-3:]
        computed = {
            phase: float(np.median([slept[step.iteration][phase] * 1e9 for step in steps]))
            for phase in ("forward", "backward")
        }
        assert row.forward_ns >= 0.99 * computed["forward"] and row.backward_ns >= 0.99 * computed["backward"]
        assert row.forward_ns + row.backward_ns <= _most(slept, steps)
        assert_waits_for_the_rest(row)


def _most(slept: list[dict[str, float]], steps: list[Step]) -> float:
    """Returns a tenth more than was planted, and the time in which the thread waited for a processor."""
    return float(
        np.median(
            [1.1 * sum(slept[step.iteration].values()) * 1e9 + step.processor_wait_ns for step in steps],
        )
    )


def assert_waits_for_the_rest(row: StageRow) -> None:
    everything = row.forward_ns + row.backward_ns + row.waiting_ns
    assert row.bubble == pytest.approx(row.waiting_ns / everything, abs=0.1)
