"""The load of every expert of every MoE layer, by its global id, over all ranks and timed steps.

    loads (steps, local experts) of each rank -> the steps that all hosts recorded -> sums by (layer, global expert)

Ranks that host the same expert for different tokens (expert data parallel) add up.  Ranks that hold slices of one
expert (its parameters are split over tp) process the same tokens: of each tp group only the lowest recorded rank
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distprof.merge.align import Alignment, Module
from distprof.merge.load import LoadedRun
from distprof.merge.rankdata import RankData
from distprof.merge.report import ExpertLayerStats
from distprof.merge.topology import Layout
from distprof.merge.tree import IntArray
from distprof.records import AXES, ExpertLayer


@dataclass(frozen=True, eq=False)
class _Host:
    """One rank's part of one layer."""

    data: RankData
    layer: ExpertLayer
    iterations: tuple[int, ...]
    loads: IntArray | None  # (iterations, local experts)
    role: tuple[int, ...] | None  # where tp slices the experts: the rank's place but for tp

    def tokens(self, iterations: Sequence[int]) -> IntArray:
        """Sums by local expert over some of its iterations."""
        assert self.loads is not None
        some = self.iterations != tuple(iterations)
        loads = self.loads[np.isin(self.iterations, iterations)] if some else self.loads
        total: IntArray = loads.sum(axis=0)
        return total


def expert_layers(run: LoadedRun, alignment: Alignment, layout: Layout) -> tuple[ExpertLayerStats, ...]:
    """Layers in the order of the model."""
    hosts: dict[tuple[int, str], list[_Host]] = {}  # by module of the union, and what the layer calls itself
    for column, data in enumerate(run.ranks):
        for host in _hosts_of(data, run.mode, layout):
            place = int(alignment.index(column)[host.layer.row])
            hosts.setdefault((place, host.layer.name), []).append(host)
    return tuple(_stats(_label(alignment.modules[place], name), hosts[place, name]) for place, name in sorted(hosts))


def _label(module: Module, name: str) -> str:
    """With the model in front where there are several; a layer that goes by another name than its module keeps it."""
    return module.label if module.row.name == name else name


def _hosts_of(data: RankData, mode: str, layout: Layout) -> list[_Host]:
    window = data.windows.get(mode)
    loads = window.loads if window else None
    hosts, start = [], 0
    for layer in data.layers:
        end = start + len(layer.local_experts)
        own = None if loads is None else loads[:, start:end]
        sliced = not data.parameters.sliced_rows.isdisjoint(data.tree.subtree(layer.row))
        role = layout.piece(data.rank, [axis for axis in AXES if axis != "tp"]) if sliced else None
        hosts.append(_Host(data, layer, window.load_iterations if window else (), own, role))
        start = end
    return hosts


def _stats(name: str, hosts: Sequence[_Host]) -> ExpertLayerStats:
    experts = max(host.layer.num_experts for host in hosts)
    where: list[list[int]] = [[] for _ in range(experts)]
    for host in hosts:
        for expert in host.layer.local_experts:
            where[expert].append(host.data.rank)
    heard = _heard([host for host in hosts if host.loads is not None])
    iterations = sorted(set.intersection(*(set(host.iterations) for host in heard))) if heard else []
    tokens = _tokens(heard, iterations, experts)
    known = [count for count in tokens if count is not None]
    total = sum(known)
    return ExpertLayerStats(
        name=name,
        num_experts=experts,
        steps=len(iterations),
        tokens=tokens,
        hosts=tuple(tuple(ranks) for ranks in where),
        max_over_mean=max(known) * len(known) / total if total else None,
        hottest=tokens.index(max(known)) if total else None,
        dead=tuple(expert for expert, count in enumerate(tokens) if count == 0),
    )


def _heard(hosts: Sequence[_Host]) -> list[_Host]:
    """All hosts, but of those that hold slices of the same experts only the first."""
    seen = set()
    heard = []
    for host in hosts:
        key = host.data.rank if host.role is None else (host.role, host.layer.local_experts)
        if key not in seen:
            seen.add(key)
            heard.append(host)
    return heard


def _tokens(heard: Sequence[_Host], iterations: Sequence[int], experts: int) -> tuple[int | None, ...]:
    total = np.zeros(experts, np.int64)
    known = np.zeros(experts, np.bool_)
    if iterations:
        for host in heard:
            local = list(host.layer.local_experts)
            np.add.at(total, local, host.tokens(iterations))
            known[local] = True
    return tuple(count if there else None for count, there in zip(total.tolist(), known.tolist(), strict=True))
