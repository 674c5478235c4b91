"""The parameters of a rank as the analysis needs them; ranks that wrote the same records share one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from distprof.records import DENSE, EXPERT, ROUTER, Parameter, Parameters

#: Models, each as its parameters: (name, elements of the whole).
Held = frozenset[frozenset[tuple[str, int]]]

#: Axes along which tensor parallelism cuts modules.
_SLICING = {"tp", "etp"}
#: A parameter of an expert that is so many times smaller than the largest is no matrix.
_SMALL = 16


class ExpertMatrices(NamedTuple):
    """The matrices of experts that one module owns."""

    elements: int  # with all slices of tensor parallelism
    of_all: bool  # of the experts of all ep ranks, as one DTensor has them; else of those of the rank


class ParameterSet:
    """The parameters of one rank, without tied ones: each object once."""

    def __init__(self, records: Sequence[Parameters]) -> None:
        """``records`` has one record a root."""
        self.records = records
        #: By root, what a module calls it that holds several of them.
        self.held_as = {record.root: record.held_as for record in records if record.held_as}
        self._held: dict[frozenset[int], Held] = {}
        self.counted = tuple(p for record in records for p in record.parameters if not p.tied_to)
        #: The roots that were met in a forward without gradient, and that no optimizer is known to step.
        self.met_evaluated = frozenset(record.root for record in records if record.evaluated)
        #: With data-parallel sharding undone; None when the rank recorded no parameters.
        self.rank_numel = sum(p.rank_numel for p in self.counted) if records else None
        #: The sets of axes on which ranks hold different parameters under one name.
        self.splits = tuple(sorted({p.split for p in self.counted}))
        #: All these axes.
        self.split_axes = tuple(sorted({axis for split in self.splits for axis in split}))
        every = [p for record in records for p in record.parameters]
        #: Rows of the tree whose parameters tensor parallelism cuts.
        self.sliced_rows = frozenset(p.row for p in every if _is_sliced(p))
        #: Rows of the tree that own parameters of experts, and of routers.
        self.expert_rows = frozenset(p.row for p in every if kind_of(p) == EXPERT)
        self.router_rows = frozenset(p.row for p in every if kind_of(p) == ROUTER)
        #: Elements on this rank of each row's largest parameter, tied ones included: of a Linear its weight.
        self.largest: dict[int, int] = {}
        for p in every:
            self.largest[p.row] = max(self.largest.get(p.row, 0), p.rank_numel)
        #: By row of experts: their matrices, without biases.
        self.matrices = _matrices(every)

    def held(self, without: frozenset[int] = frozenset()) -> Held:
        """Returns the parameters that replicas of this rank hold too, without the models numbered in ``without``."""
        if without not in self._held:
            models = (record for record in self.records if record.root not in without)
            parameters = (
                frozenset((p.name, p.global_numel) for p in model.parameters if _is_shared(p)) for model in models
            )
            self._held[without] = frozenset(filter(None, parameters))
        return self._held[without]

    @cached_property
    def outside_wrappers(self) -> tuple[Parameter, ...]:
        """Returns the parameters that no wrapper keeps equal over the ranks, where a wrapper keeps others equal."""
        every = [p for record in self.records for p in record.parameters]
        kept = {name for p in every if p.kept_alike for name in (p.name, p.tied_to)}
        if not kept:
            return ()
        return tuple(p for p in self.counted if _is_shared(p) and not p.sharded and p.name not in kept)

    def renamed(self, rename: Callable[[int, str], str]) -> ParameterSet:
        """Returns the set with new names; ``rename`` maps (root, name) to a name."""
        return ParameterSet([_renamed(record, rename) for record in self.records])

    def split(self, roots: frozenset[int]) -> tuple[ParameterSet, ParameterSet]:
        """Returns the parameters of all other roots, and those of ``roots`` alone; what both hold is of the others."""
        others = [record for record in self.records if record.root not in roots]
        own = [record for record in self.records if record.root in roots]
        shared = _shared_owners(others, own)
        return (
            ParameterSet([_owned(record, shared) for record in others]),
            ParameterSet([_given_away(record, shared) for record in own]),
        )


#: (root, name) of the first parameter that is an object -> the same of the one that counts for it.
_Owners = dict[tuple[int, str], tuple[int, str]]


def _shared_owners(others: Sequence[Parameters], own: Sequence[Parameters]) -> _Owners:
    """Which parameters of ``own`` are objects that ``others`` hold as well, met first in ``own``."""
    firsts = {(p.root, p.name): p.global_numel for record in own for p in record.parameters if not p.tied_to}
    shared: _Owners = {}
    for record in others:
        for p in record.parameters:
            for root in record.tied_roots if p.tied_to else ():
                if firsts.get((root, p.tied_to)) == p.global_numel:
                    shared.setdefault((root, p.tied_to), (p.root, p.name))
    return shared


def _owned(record: Parameters, shared: _Owners) -> Parameters:
    """``record`` with parameters that count for those of the other models no longer tied to them."""
    counting = {place for place in shared.values() if place[0] == record.root}
    own = (replace(p, tied_to="") if (p.root, p.name) in counting else p for p in record.parameters)
    return replace(record, parameters=tuple(own)) if counting else record


def _given_away(record: Parameters, shared: _Owners) -> Parameters:
    own = (
        replace(p, tied_to=shared[p.root, p.name][1]) if (p.root, p.name) in shared else p for p in record.parameters
    )
    return replace(record, parameters=tuple(own))


def kind_of(parameter: Parameter) -> str:
    """Returns one of records.KINDS; a parameter that is spread over ep is an expert's, whatever the record says."""
    if parameter.kind != DENSE or not parameter.split:
        return parameter.kind
    return EXPERT if _is_over_experts(parameter.split) else DENSE


def _is_shared(parameter: Parameter) -> bool:
    """Returns whether replicas have the parameter too: no expert, and no module that was added later (``<Class>``)."""
    return not parameter.split and kind_of(parameter) != EXPERT and "<" not in parameter.name


def _renamed(record: Parameters, rename: Callable[[int, str], str]) -> Parameters:
    own = (replace(p, name=rename(p.root, p.name)) for p in record.parameters)
    return replace(record, parameters=tuple(own))


def _matrices(parameters: Sequence[Parameter]) -> dict[int, ExpertMatrices]:
    found: dict[int, ExpertMatrices] = {}
    largest = max((p.rank_numel for p in parameters if kind_of(p) == EXPERT), default=0)
    for p in parameters:
        if kind_of(p) == EXPERT and p.rank_numel * _SMALL > largest and not p.name.endswith("bias"):
            before = found.get(p.row, ExpertMatrices(0, of_all=_is_over_experts(p.sharded)))
            found[p.row] = before._replace(elements=before.elements + p.global_numel)
    return found


def _is_over_experts(axes: Iterable[str]) -> bool:
    """Returns whether one of the axes is one that experts are distributed over."""
    return any(axis == "ep" or axis.startswith("ep_size_") for axis in axes)


def _is_sliced(parameter: Parameter) -> bool:
    axes = {*parameter.sharded, *parameter.split}
    # Of a DTensor over ep, a rank has a part because it has some of the experts.
    is_part = parameter.rank_numel < parameter.global_numel and not _is_over_experts(parameter.sharded)
    return is_part or not _SLICING.isdisjoint(axes)
