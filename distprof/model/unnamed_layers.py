"""Finds modules that may be MoE layers although no name says so; their calls in a counted step decide."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from distprof.frameworks.expert_finder import unnamed_experts
from distprof.frameworks.module_view import ModelView, unwrapped
from distprof.model.moe_layers import MoeLayer, moe_layer
from distprof.module_walk import every_module, modules_of
from distprof.records import EXPERT, ROUTER, ModuleRow, Parameter, Suspect

_MOST = 1_000
_MAY_BE = "its modules get a part of the tokens each, after one with an output for each of them"
_INSIDE = "it is an expert that has experts"


#: Returns weights that are plain tensors, which this rank has whole.  Of experts: those that hold a part for each of
#: them, or one matrix of each.
ReadWeights = Callable[[], list[Tensor]]


class Seen(Enum):
    """What the calls of a counted step show."""

    NOTHING = "nothing"
    DENSE = "dense"  # each module gets all tokens
    EXPERTS = "experts"
    SUSPECT = "suspect"  # not all modules get all tokens, but nothing says which they get


@dataclass(frozen=True)
class Verdict:
    seen: Seen
    top_k: int = 0  # experts for each token
    reads_router: bool = False  # the output of the router is the choice that its experts got


@dataclass
class UnnamedLayer:
    """A layer as it would be if it is one, and what a counted step has shown of it since it was last asked.

    ``has_router``: by its weights, or by the name of its router, it is one, but nothing is named after experts.  Such a
    layer is one unless its calls, or the use of its weights, show that it is dense; ``is_decided``: it was judged.
    """

    layer: MoeLayer
    verdict: Verdict = field(default=Verdict(Seen.NOTHING))
    has_router: bool = False
    read_weights: ReadWeights | None = None  # of the experts
    read_router: ReadWeights | None = None  # where the router's weight is the layer's own
    is_decided: bool = False

    @property
    def is_due(self) -> bool:
        """Whether :func:`judge` has something to say of it."""
        return self.verdict.seen is not Seen.NOTHING or (self.has_router and not self.is_decided)

    @property
    def is_layer(self) -> bool:
        seen = self.verdict.seen
        return seen is Seen.EXPERTS or (self.has_router and not self.is_decided and seen is not Seen.DENSE)


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
        for experts, own_router in unnamed_experts(one, view):
            layer = moe_layer(experts, row, rows, modules, size_of)
            if layer is None or found == _MOST:
                continue
            inside = {*layer.expert_rows}
            if not any(above in inside for at in known for above in _and_above(at, rows)):
                found += 1
                yield UnnamedLayer(
                    replace(layer, model_row=first_row),
                    read_weights=_block_weights(layer, modules),
                    read_router=partial(_read_own, weakref.ref(one), own_router) if own_router else None,
                )


def doubtful(layers: Sequence[MoeLayer], first_row: int, module: nn.Module) -> list[UnnamedLayer]:
    """Returns those of the layers of ``module`` that are whole and in which nothing is named after experts.

    A gate, or a Linear with as many rows, may also weigh heads or branches that all work on all tokens.
    """
    whole = [one for one in layers if one.guessed and max(len(one.expert_rows), one.local) == one.num_experts]
    modules = dict(enumerate(modules_of(module), first_row)) if whole else {}
    return [UnnamedLayer(one, has_router=True, read_weights=_block_weights(one, modules)) for one in whole]


def _stacked_weights(layer: MoeLayer, modules: Mapping[int, nn.Module]) -> ReadWeights | None:
    holder = modules.get(layer.holder)
    if layer.expert_rows or holder is None:
        return None
    return partial(_read_stacked, weakref.ref(unwrapped(holder)), layer.num_experts)


def _block_weights(layer: MoeLayer, modules: Mapping[int, nn.Module]) -> ReadWeights | None:
    if not layer.expert_rows:
        return _stacked_weights(layer, modules)
    return partial(_read_matrices, [weakref.ref(modules[row]) for row in layer.expert_rows])


def _read_stacked(holder: weakref.ref[nn.Module], number: int) -> list[Tensor]:
    return [one for one in _plain_weights(holder()) if one.dim() > 2 and one.shape[0] == number]


def _read_own(layer: weakref.ref[nn.Module], name: str) -> list[Tensor]:
    module = layer()
    return [one for one in _plain_weights(module) if module is not None and one is module._parameters.get(name)]


def _read_matrices(blocks: Sequence[weakref.ref[nn.Module]]) -> list[Tensor]:
    """Returns the first matrix of each block; nothing where one has none."""
    every = (
        (one for part in every_module(block) for one in _plain_weights(part)) for read in blocks if (block := read())
    )
    firsts = [next((one for one in own if one.dim() == 2), None) for own in every]
    found = [one for one in firsts if one is not None]
    return found if len(found) == len(blocks) else []


def _plain_weights(module: nn.Module | None) -> Iterator[Tensor]:
    for one in module._parameters.values() if module is not None else ():
        if one is not None and type(one) in (nn.Parameter, Tensor) and not is_lazy(one) and one.numel():
            yield one


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
    for one in sorted(candidates, key=lambda candidate: not candidate.is_layer):
        row, verdict = one.layer.row, one.verdict
        is_layer, one.is_decided = one.is_layer, True
        nothing = not is_layer and verdict.seen is not Seen.SUSPECT
        if nothing or not done.isdisjoint({row, *one.layer.expert_rows}):
            continue
        done |= {row, *one.layer.expert_rows}
        name = rows[row].name or rows[row].class_name
        if any(above in inside for above in _and_above(row, rows)):
            judged.suspects.append(Suspect(name, row, _INSIDE))
        elif is_layer:
            inside.add(row)
            judged.layers.append(one.layer if one.has_router else _layer(one.layer, verdict))
        else:
            judged.suspects.append(Suspect(name, row, _MAY_BE))
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
        **{row: EXPERT for layer in layers for row in layer.parameter_rows},
    }
    own = {(layer.holder, name) for layer in layers for name in layer.own}

    def kind(one: Parameter) -> str:
        if (one.row, one.name.rpartition(".")[2]) in own:
            return EXPERT
        return next((kinds[row] for row in _and_above(one.row, rows) if row in kinds), one.kind)

    return [replace(one, kind=kind(one)) for one in parameters]


def _and_above(row: int, rows: Sequence[ModuleRow]) -> Iterator[int]:
    while row >= 0:
        yield row
        row = rows[row].parent
