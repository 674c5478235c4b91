"""Finds modules that may be MoE layers although no name says so; their calls in a counted step decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from torch import nn

from distprof.frameworks.expert_finder import unnamed_experts
from distprof.frameworks.module_view import ModelView
from distprof.model.moe_layers import MoeLayer, moe_layer
from distprof.module_walk import modules_of
from distprof.records import EXPERT, ROUTER, ModuleRow, Parameter, Suspect

_MOST = 1_000
_MAY_BE = "its modules get a part of the tokens each, after one with an output for each of them"
_INSIDE = "it is an expert that has experts"


class Seen(Enum):
    """What the calls of a counted step show."""

    NOTHING = "nothing"
    EXPERTS = "experts"
    SUSPECT = "suspect"  # not all modules get all tokens, but nothing says which they get


@dataclass(frozen=True)
class Verdict:
    seen: Seen
    top_k: int = 0  # experts for each token
    reads_router: bool = False  # the output of the router is the choice that its experts got


@dataclass
class UnnamedLayer:
    """A layer as it would be if it is one, and what a counted step has shown of it since it was last asked."""

    layer: MoeLayer
    verdict: Verdict = field(default=Verdict(Seen.NOTHING))


def find_unnamed_layers(
    module: nn.Module,
    first_row: int,
    rows: list[ModuleRow],
    layers: Sequence[MoeLayer],
    size_of: Callable[[str], int],
) -> Iterator[UnnamedLayer]:
    """Yields the candidates among ``module`` and all below it, whose rows begin at ``first_row``; none in or around one
    of the ``layers``.
    """
    view, modules = ModelView(module), dict(zip(range(first_row, len(rows)), modules_of(module), strict=False))
    known = {layer.row for layer in layers}
    found = 0
    for row, one in modules.items():
        if any(above in known for above in _and_above(row, rows)):
            continue
        for experts in unnamed_experts(one, view):
            layer = moe_layer(experts, row, rows, modules, size_of)
            if layer is None or found == _MOST:
                continue
            inside = {*layer.expert_rows}
            if not any(above in inside for at in known for above in _and_above(at, rows)):
                found += 1
                yield UnnamedLayer(replace(layer, model_row=first_row))


@dataclass
class Judged:
    """What the candidates turned out to be."""

    layers: list[MoeLayer] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)


def judge(candidates: Sequence[UnnamedLayer], rows: Sequence[ModuleRow], known: Sequence[int]) -> Judged:
    """Returns the layers and the suspects among candidates, without those at the rows that are ``known`` to be layers
    or suspects.
    """
    judged, done, inside = Judged(), {*known}, {*known}
    for one in sorted(candidates, key=lambda candidate: candidate.verdict.seen is not Seen.EXPERTS):
        row, verdict = one.layer.row, one.verdict
        if verdict.seen is Seen.NOTHING or not done.isdisjoint({row, *one.layer.expert_rows}):
            continue
        done |= {row, *one.layer.expert_rows}
        name = rows[row].name or rows[row].class_name
        if any(above in inside for above in _and_above(row, rows)):
            judged.suspects.append(Suspect(name, row, _INSIDE))
        elif verdict.seen is Seen.SUSPECT:
            judged.suspects.append(Suspect(name, row, _MAY_BE))
        else:
            inside.add(row)
            judged.layers.append(_layer(one.layer, verdict))
    return judged


def _layer(layer: MoeLayer, verdict: Verdict) -> MoeLayer:
    read = layer.read_router if verdict.reads_router else None
    return replace(layer, top_k=layer.top_k or verdict.top_k, read_router=read)


def with_kinds(
    parameters: Sequence[Parameter], rows: Sequence[ModuleRow], layers: Sequence[MoeLayer]
) -> list[Parameter]:
    """Returns parameters, those of the layers' experts and routers as such."""
    kinds: Mapping[int, str] = {
        **{layer.router: ROUTER for layer in layers},
        **{row: EXPERT for layer in layers for row in layer.expert_rows},
    }

    def kind(one: Parameter) -> str:
        return next((kinds[row] for row in _and_above(one.row, rows) if row in kinds), one.kind)

    return [replace(one, kind=kind(one)) for one in parameters]


def _and_above(row: int, rows: Sequence[ModuleRow]) -> Iterator[int]:
    while row >= 0:
        yield row
        row = rows[row].parent
