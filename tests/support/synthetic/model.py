"""The model of a synthetic job: the modules of a pipeline stage, with their parameters and work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from support.synthetic.job import TOKENS, VOCABULARY, WIDTH, Job

from distprof.records import DENSE, EMBEDDING, EXPERT, ROUTER, SHARED, ModuleRow, Parameter


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
