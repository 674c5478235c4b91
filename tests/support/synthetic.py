"""Writes synthetic runs: a GPT with MoE blocks on any dp x tp x pp x ep, with a slow rank on request.

``write_run(tmp_path / "run", dp=4, tp=2, ep=2, slow_rank=5)`` writes what the recorders of such a job would, by the
real :class:`~distprof.shard.writer.ShardWriter`; ``rank_records(job, rank)`` returns the records themselves, which a
test may change before it writes them.  The same arguments make the same bytes.  Import it as ``from support.synthetic
import ...``: conftest.py makes ``support`` importable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from support.simulated.synthetic import MARGIN_NS, collective_window, with_collectives

from distprof.records import (
    DENSE,
    EMBEDDING,
    EXPERT,
    ROUTER,
    SHARED,
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
    ModuleRow,
    Parameter,
    Parameters,
    Plan,
    Record,
    Step,
    Topology,
    Tree,
)
from distprof.run_folder import Manifest, RunFolder
from distprof.shard.reader import Shard, parse_shard
from distprof.shard.writer import FileSink, MemorySink, ShardWriter

MS = 1_000_000
WARMUP = 5
WIDTH = 64
VOCABULARY = 1000
HEADS = 4
TOKENS = 16  # of one sample
RUN_ID = "synthetic-1"
WALL_NS = 1_700_000_000_000_000_000
BATCH_FOUND = "dimension 0 of the first tensor that the model is given"


@dataclass(frozen=True)
class Job:
    """The job to write.  Every second block is a mixture of ``experts``, spread over ``ep`` (0: all blocks are dense).

    ``slow_rank`` takes ``slow_ms`` more in every iteration, in ``slow_phase`` (forward, backward or data) and, but for
    data, in the self time of ``slow_module``; its peers wait for it in the backward of the outermost module, or, where
    ``waits_in`` names a module, those of its ep group alone in the forward of that.
    ``hot`` is how many times the load of another expert 1 of each layer gets.  ``tp_experts``: experts are cut over tp.
    ``local_names``: each pipeline stage numbers its blocks from 0 on.  A token sees ``top_k`` experts, and with
    ``shared_expert`` one more that sees all tokens.  ``tied_stages``: the head of the last stage is a copy of the
    embedding of the first.  The MoE layers run on ``padding`` times the rows that they need, and with ``split_tokens``
    each tp rank routes tokens of its own.  A rank enqueues ``collectives`` in an iteration; none are recorded if it is
    0.  ``routes``: routers' choices are recorded, too; every rank of an ep group sends its experts about as many.
    """

    dp: int = 2
    tp: int = 1
    pp: int = 1
    ep: int = 1
    layers: int = 2
    experts: int = 4
    steps: int = 3
    micro_batches: int = 1
    batch: int = 8
    slow_rank: int | None = None
    slow_ms: float = 40.0
    slow_module: str = "blocks.1.moe.router"
    slow_phase: str = "forward"
    waits_in: str = ""
    noise: float = 0.05  # relative, of every time; 0: times and loads are the same in every step and on every rank
    hot: float = 1.0
    tp_experts: bool = False
    local_names: bool = False
    top_k: int = 2
    shared_expert: bool = False
    tied_stages: bool = False
    padding: int = 1
    split_tokens: bool = False
    mode: str = TRAINING
    counted: bool = True
    source: str = "declared"
    seed: int = 0
    chip: str = "Some CPU"  # the device of all MACs; ``arithmetic`` is their number format
    arithmetic: str = "fp32"
    collectives: int = 0
    routes: bool = False

    @property
    def world(self) -> int:
        return self.dp * self.tp * self.pp

    def coordinates(self, rank: int) -> dict[str, int]:
        """tp runs fastest, then dp, then pp; ep is the low part of dp."""
        tp, dp, pp = rank % self.tp, rank // self.tp % self.dp, rank // (self.tp * self.dp)
        return {"dp": dp, "tp": tp, "pp": pp, "cp": 0, "ep": dp % self.ep, "mp": pp * self.tp + tp}

    def expert_group(self, rank: int) -> tuple[int, int, int]:
        place = self.coordinates(rank)
        return place["pp"], place["tp"], place["dp"] // self.ep

    @property
    def sizes(self) -> dict[str, int]:
        return {"dp": self.dp, "tp": self.tp, "pp": self.pp, "cp": 1, "ep": self.ep, "mp": self.tp * self.pp}

    def local_experts(self, rank: int) -> tuple[int, ...]:
        held = self.experts // self.ep
        first = self.coordinates(rank)["ep"] * held
        return tuple(range(first, first + held))


@dataclass(frozen=True)
class _Spec:
    """A module of the job, with parameters of one kind as (short name, elements in the model, tp shards it, ep splits
    it).
    """

    name: str
    class_name: str
    depth: int
    ms: float = 0.0  # own forward time
    parameters: tuple[tuple[str, int, bool, bool], ...] = ()
    repr: str = ""
    wrapper: bool = False
    called: bool = True
    kind: str = DENSE


class Stage:
    """The modules of one pipeline stage with ``held`` experts on a rank, and their rows."""

    def __init__(self, job: Job, pp: int) -> None:
        self.job = job
        self.specs = list(_specs(job, pp))
        self.parents = _parents(self.specs)

    @cached_property
    def rows(self) -> tuple[ModuleRow, ...]:
        own = [sum(self.rank_numel(*parameter[1:3]) for parameter in spec.parameters) for spec in self.specs]
        total = list(own)
        for row in range(len(own) - 1, 0, -1):
            total[self.parents[row]] += total[row]
        return tuple(
            ModuleRow(
                name=spec.name,
                class_name=spec.class_name,
                root=0,
                parent=parent,
                depth=spec.depth,
                extra_repr=spec.repr,
                own_params=own[row],
                total_params=total[row] - self.tied(row),
                wrapper=spec.wrapper,
            )
            for row, (spec, parent) in enumerate(zip(self.specs, self.parents, strict=True))
        )

    def tied(self, row: int) -> int:
        """Returns the elements that a row above both the embedding and its tied head would count twice."""
        names = {spec.name for spec in self.specs}
        return self.rank_numel(VOCABULARY * WIDTH, True) if row < 2 and {"embed", "head"} <= names else 0

    def rank_numel(self, numel: int, sharded: bool) -> int:
        return numel // self.job.tp if sharded else numel

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        tied = any(spec.name == "embed" for spec in self.specs)
        return tuple(
            Parameter(
                name=f"{spec.name}.{short}",
                row=row,
                root=0,
                local_numel=self.rank_numel(numel, sharded),
                rank_numel=self.rank_numel(numel, sharded),
                global_numel=numel,
                dtype="float32",
                itemsize=4,
                split=("ep",) if split and self.job.ep > 1 else (),
                tied_to="embed.weight" if spec.name == "head" and tied else "",
                sharded=("tp",) if sharded and self.job.tp > 1 else (),
                kind=spec.kind,
                shared_as="embed" if self.job.tied_stages and spec.name in ("embed", "head") else "",
                kept_alike=True,
            )
            for row, spec in enumerate(self.specs)
            for short, numel, sharded, split in spec.parameters
        )

    @cached_property
    def macs(self) -> np.ndarray[Any, Any]:
        """The forward MACs of one micro-batch by row: each token passes every Linear, and top-k experts."""
        rows = [self.rows_through(spec) * (spec.class_name == "Linear") for spec in self.specs]
        own = [sum(self.rank_numel(n, sharded) for _, n, sharded, _ in spec.parameters) for spec in self.specs]
        return np.array(rows, np.int64) * np.array(own, np.int64)

    def rows_through(self, spec: _Spec) -> int:
        tokens = TOKENS * self.job.batch // (self.job.tp if self.job.split_tokens and "moe" in spec.name else 1)
        if spec.kind != EXPERT:
            return tokens
        return tokens * self.job.top_k * self.job.ep * self.job.padding // self.job.experts

    @cached_property
    def layers(self) -> tuple[tuple[str, int], ...]:
        return tuple((spec.name, row) for row, spec in enumerate(self.specs) if spec.class_name == "MoE")


def _specs(job: Job, pp: int) -> Iterable[_Spec]:
    per_stage = -(-job.layers // job.pp)
    first = pp * per_stage
    yield _Spec("", "DistributedDataParallel", 0, 0.05, wrapper=True)
    yield _Spec("", "GPT", 1, 0.2)
    if pp == 0:
        yield _Spec(
            "embed", "Embedding", 2, 0.1, (("weight", VOCABULARY * WIDTH, True, False),), f"{VOCABULARY}, {WIDTH}",
            kind=EMBEDDING,
        )  # fmt: skip
    yield _Spec("blocks", "ModuleList", 2, called=False)
    for number in range(first, min(first + per_stage, job.layers)):
        yield from _block(job, number, f"blocks.{number - first * job.local_names}")
    if pp == job.pp - 1:
        yield _norm("norm", 2)
        yield _linear("head", 2, 1.0, VOCABULARY)


def _block(job: Job, number: int, name: str) -> Iterable[_Spec]:
    yield _Spec(name, "Block", 3, 0.05)
    yield _norm(f"{name}.ln1", 4)
    yield _Spec(f"{name}.attn", "Attention", 4, 0.5)
    yield _linear(f"{name}.attn.qkv", 5, 0.4, 3 * WIDTH)
    yield _linear(f"{name}.attn.proj", 5, 0.2, WIDTH)
    yield _norm(f"{name}.ln2", 4)
    if job.experts and number % 2:
        yield from _moe(job, f"{name}.moe")
    else:
        yield _Spec(f"{name}.mlp", "MLP", 4, 0.1)
        yield _linear(f"{name}.mlp.up", 5, 0.8, 4 * WIDTH)
        yield _linear(f"{name}.mlp.down", 5, 0.8, 4 * WIDTH)


def _moe(job: Job, name: str) -> Iterable[_Spec]:
    yield _Spec(name, "MoE", 4, 1.0)
    yield _linear(f"{name}.router", 5, 0.2, job.experts, sharded=False, kind=ROUTER)
    if job.shared_expert:
        yield _linear(f"{name}.shared", 5, 0.5, WIDTH, kind=SHARED)
    yield _Spec(f"{name}.experts", "ModuleList", 5, called=False)
    for local in range(job.experts // job.ep):
        yield _Spec(f"{name}.experts.{local}", "MLP", 6, 0.1)
        yield _linear(f"{name}.experts.{local}.up", 7, 0.5, 4 * WIDTH, sharded=job.tp_experts, kind=EXPERT)
        yield _linear(f"{name}.experts.{local}.down", 7, 0.5, 4 * WIDTH, sharded=job.tp_experts, kind=EXPERT)


def _norm(name: str, depth: int) -> _Spec:
    return _Spec(
        name, "LayerNorm", depth, 0.05, (("weight", WIDTH, False, False), ("bias", WIDTH, False, False)), f"{WIDTH}"
    )


def _linear(name: str, depth: int, ms: float, outputs: int, *, sharded: bool = True, kind: str = DENSE) -> _Spec:
    text = f"in_features={WIDTH}, out_features={outputs}, bias=False"
    return _Spec(name, "Linear", depth, ms, (("weight", WIDTH * outputs, sharded, kind == EXPERT),), text, kind=kind)


def _parents(specs: list[_Spec]) -> list[int]:
    """Returns the parent of each row: the last row before it that is one level up."""
    last: dict[int, int] = {-1: -1}
    parents = []
    for row, spec in enumerate(specs):
        parents.append(last[spec.depth - 1])
        last[spec.depth] = row
    return parents


@lru_cache(maxsize=64)
def stage_of(job: Job, pp: int) -> Stage:
    return Stage(job, pp)


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


Bend = Callable[[int, list[Record]], Iterable[Record]]


def write_run(
    folder: Path, *, missing: Iterable[int] = (), bend: Bend | None = None, manifest: bool = True, **job: Any
) -> Path:
    """Writes a run folder of the :class:`Job` of the other arguments, without the shards of the ``missing`` ranks.

    ``bend`` gets a rank and its records, and returns those that are written.  Returns ``folder``.
    """
    made, run = Job(**job), RunFolder(folder)
    run.shards.mkdir(parents=True)
    if manifest:
        run.write_manifest(Manifest(RUN_ID, "demo", ("torchrun", "train.py"), made.world, WALL_NS))
    for rank in sorted(set(range(made.world)) - set(missing)):
        records = rank_records(made, rank)
        write_shard(run.shard_path(rank, 0), bend(rank, records) if bend else records)
    return folder


def write_shard(path: Path, records: Iterable[Record]) -> None:
    sink = FileSink(path)
    writer = ShardWriter(sink)
    for record in records:
        writer.write(record)
    sink.close()


def in_memory(job: Job) -> list[Shard]:
    """Returns the shards of the same run, written and parsed in memory."""
    return [shard_of(rank_records(job, rank)) for rank in range(job.world)]


def shard_of(records: Iterable[Record]) -> Shard:
    sink = MemorySink()
    writer = ShardWriter(sink)
    for record in records:
        writer.write(record)
    return parse_shard(bytes(sink.data))
