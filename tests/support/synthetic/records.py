"""What a rank of a synthetic job records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from support.simulated.synthetic import MARGIN_NS, collective_window, with_collectives
from support.synthetic.job import MS, RUN_ID, TOKENS, WALL_NS, WARMUP, WIDTH, Job
from support.synthetic.model import Stage, stage_of

from distprof.records import (
    TRAINING,
    Counts,
    DeviceWork,
    End,
    ExpertLayer,
    ExpertLayers,
    ExpertLoad,
    ExpertRouting,
    Header,
    LayerRouting,
    Memory,
    Parameters,
    Plan,
    Record,
    Step,
    Topology,
    Tree,
)

BATCH_FOUND = "dimension 0 of the first tensor that the model is given"


def rank_records(job: Job, rank: int) -> list[Record]:
    """Returns all records of one rank, the header first."""
    coordinates = job.coordinates(rank)
    stage = stage_of(job, coordinates["pp"])
    called = np.array([spec.called for spec in stage.specs], np.uint32) * job.micro_batches
    work = stage.macs * job.micro_batches
    layers = tuple(
        ExpertLayer(name, row, job.experts, job.local_experts(rank), top_k=job.top_k) for name, row in stage.layers
    )
    records: list[Record] = [
        _header(job, rank),
        Plan(start=WARMUP, counted=int(job.counted), timed=job.steps),
        Topology(source=job.source, sizes=job.sizes, coordinates=coordinates),
        Tree(first_row=0, rows=stage.rows),
        Parameters(0, stage.parameters, tied_roots=tuple({p.root for p in stage.parameters if p.tied_to})),
    ]
    if layers:
        records.append(ExpertLayers(layers))
    if job.counted:
        samples = job.batch * job.micro_batches
        counts = Counts(WARMUP, job.mode, job.micro_batches, samples, called, work, 2 * work + called * WIDTH)
        if job.mode == TRAINING:  # every linear's input needs a gradient here
            again = work // 2  # half of the forward runs twice
            counts = replace(counts, backward_macs=2 * work, backward_flops=4 * work)
            counts = replace(counts, recompute_macs=again, recompute_flops=2 * again)
            outside = {"forward_flops": 3 * samples, "backward_flops": 2 * samples, "optimizer_flops": 1000}
            counts = replace(counts, outside=outside)
        uncounted, most = {"aten.sort": 2 * job.micro_batches}, {"aten.sort": 2 * samples}
        counts = replace(
            counts, uncounted=uncounted, uncounted_work=most, batch_size=job.batch, batch_found=BATCH_FOUND
        )
        records.append(replace(counts, device_work=(_device_work(job, int(work.sum())),)))
    random = np.random.default_rng((job.seed, rank))
    if job.collectives:
        records.append(collective_window())
    for iteration in range(WARMUP + 1, WARMUP + 1 + job.steps):
        step = _step(job, rank, iteration, stage, called, random)
        records += [step] if not job.collectives else _with_collectives(job, rank, stage, step)
        if layers:
            records.append(ExpertLoad(iteration, _load(job, rank, iteration, len(layers))))
            records += [_routing(job, rank, iteration, len(layers))] if job.routes else []
    held = 4 * sum(parameter.local_numel for parameter in stage.parameters if not parameter.tied_to)
    if job.mode == TRAINING:
        records.append(Memory(WARMUP + 1, held, held, 2 * held))
    return [*records, End("window complete", WARMUP + 1 + job.steps)]


def _header(job: Job, rank: int) -> Header:
    return Header(
        run_id=RUN_ID,
        rank=rank,
        world_size=job.world,
        local_rank=rank % 8,
        local_world_size=min(8, job.world),
        node_rank=rank // 8,
        host=f"node{rank // 8}",
        pid=1000 + rank,
        script="train.py",
        device_name="Some CPU",
        writer="0.2.0",
        python="3.11.0",
        torch="2.13.0",
        wall_ns=WALL_NS + rank,
        mono_ns=1000 + rank,
    )


def _device_work(job: Job, forward_macs: int) -> DeviceWork:
    """Returns the work of forward, a backward of twice as much, and half of the forward recomputed."""
    on_cpu, trains = "CPU" in job.chip, job.mode == TRAINING
    model = 3 * forward_macs if trains else forward_macs
    return DeviceWork(
        device="cpu" if on_cpu else "cuda:0",
        name=job.chip,
        threads=2 if on_cpu else 0,
        arithmetic=job.arithmetic,
        model_macs=model,
        executed_macs=model + trains * (forward_macs // 2),
    )


def _step(job: Job, rank: int, iteration: int, stage: Stage, called: Any, random: np.random.Generator) -> Step:
    own = np.array([spec.ms * MS for spec in stage.specs]) * job.micro_batches
    forward = own * random.lognormal(0, job.noise, len(own))
    backward = 2 * own * random.lognormal(0, job.noise, len(own))
    data, delay = 0.3 * MS * random.lognormal(0, job.noise), job.slow_ms * MS
    if rank == job.slow_rank:
        data += delay * (job.slow_phase == "data")
        at = [row for row, spec in enumerate(stage.specs) if spec.name == job.slow_module]
        forward[at] += delay * (job.slow_phase == "forward")
        backward[at] += delay * (job.slow_phase == "backward")
    elif job.slow_rank is not None and not job.waits_in:
        backward[0] += delay  # the all_reduce of gradients waits for the slow rank
    elif job.slow_rank is not None and job.expert_group(rank) == job.expert_group(job.slow_rank):
        forward[[row for row, spec in enumerate(stage.specs) if spec.name == job.waits_in]] += 0.98 * delay
    training = job.mode == TRAINING
    forward_ns, backward_ns = forward.astype(np.int64), (backward * training).astype(np.int64)
    phases = {
        "data": int(data),
        "forward": int(forward_ns.sum()),
        "outside": int(0.2 * MS),
        "backward": int(backward_ns.sum()),
        "optimizer": int(training * MS * random.lognormal(0, job.noise)),
        "evaluation": 0,
        "other": int(0.1 * MS),
    }
    duration = sum(phases.values())
    return Step(
        iteration=iteration,
        mode=job.mode,
        start_wall_ns=WALL_NS + iteration * 100 * MS,
        duration_ns=duration,
        phases_ns=phases,
        micro_batches=job.micro_batches,
        batch_size=job.batch,
        samples=job.batch * job.micro_batches,
        tokens=job.batch * job.micro_batches * TOKENS,
        batch_found=BATCH_FOUND,
        peak_memory_bytes=(300 + rank) << 20,
        memory_source="rss",
        calls=called,
        forward_ns=forward_ns,
        backward_ns=backward_ns,
    )


def _with_collectives(job: Job, rank: int, stage: Stage, step: Step) -> Iterable[Record]:
    """Returns a step with its collectives; iterations follow each other, with time for the optimizer between them."""
    slow_ns = round(job.slow_ms * MS) if job.slow_rank is not None else 0
    until_ns = round(3 * sum(spec.ms for spec in stage.specs) * MS * job.micro_batches) + slow_ns + MARGIN_NS
    start_ns = 1000 + rank + step.iteration * (until_ns + 2 * MS)
    waits_ns = slow_ns if rank != job.slow_rank else 0
    return with_collectives(step, job.collectives, start_ns, until_ns, waits_ns)


def _load(job: Job, rank: int, iteration: int, layers: int) -> np.ndarray[Any, Any]:
    """Returns the tokens of each expert; tp ranks that share experts see the same tokens, and draw the same numbers."""
    place = job.coordinates(rank)["dp"] if job.tp_experts else rank
    random = np.random.default_rng((job.seed, 7, place, iteration))
    means = np.array([100 * (job.hot if expert == 1 else 1) for expert in job.local_experts(rank)] * layers)
    return (random.poisson(means) if job.noise else means).astype(np.int64)


def _routing(job: Job, rank: int, iteration: int, layers: int) -> ExpertRouting:
    """Returns the choices of a rank's routers: its part of what all experts of its ep group process."""
    chosen = _group_loads(job, job.expert_group(rank), iteration, layers)
    place = job.coordinates(rank)["ep"]
    own = (chosen // job.ep + (place < chosen % job.ep)).astype("<u4")
    return ExpertRouting(iteration, tuple(LayerRouting(layer, routed) for layer, routed in enumerate(own)))


@lru_cache(maxsize=64)
def _group_loads(job: Job, group: tuple[int, int, int], iteration: int, layers: int) -> np.ndarray[Any, Any]:
    """Returns the tokens of all experts of an ep group, (layers, experts)."""
    loads = np.zeros((layers, job.experts), np.int64)
    for rank in range(job.world):
        if job.expert_group(rank) == group:
            loads[:, list(job.local_experts(rank))] = _load(job, rank, iteration, layers).reshape(layers, -1)
    return loads
