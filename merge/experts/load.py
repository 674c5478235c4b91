"""The load of every expert of every MoE layer, by its global id, over all ranks and timed steps.

    loads (steps, local experts) of each rank -> the steps that all hosts recorded -> sums by (layer, global expert)

Ranks that host the same expert for different tokens (expert data parallel) add up.  Several ranks of one tp group may
host the same experts and process the same tokens; then only the lowest recorded one of them counts.  This is so where
tp slices the experts, and where all of them have equal loads and their router saw all tokens (under sequence parallel
it sees a part).

Routers' choices are reported beside the loads (distprof.merge.experts.recorded.routing).  Some stacks run experts on
padding, or let experts fetch their tokens; their loads cannot be counted, and the load is then what routers chose and
did not drop.

    dropped = chosen - kept where routers report drops, else chosen - processed where all ranks counted

Where both are known, chosen - dropped = processed has to hold in every step (distprof.merge.experts.invariant).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.experts.cost import ep_times, with_costs
from distprof.merge.experts.counted_routers import counted_routers
from distprof.merge.experts.empty_slots import empty_slots
from distprof.merge.experts.invariant import find_breach
from distprof.merge.experts.layer_times import layer_times
from distprof.merge.experts.metrics import by_step as measures_by_step
from distprof.merge.experts.metrics import load_metrics
from distprof.merge.experts.micro_batches import MicroBatchLoads, micro_batch_loads, micro_batches
from distprof.merge.experts.placement import better_placement, first_experts
from distprof.merge.experts.recorded.hosts import ExpertHost, expert_hosts
from distprof.merge.experts.recorded.routing import RoutedTokens, Routing, distinct_sources, layer_routing
from distprof.merge.experts.recorded.same_tokens import common_iterations, distinct
from distprof.merge.experts.step_loads import (
    chosen_by_step,
    dropped_by_step,
    kept_by_step,
    over_steps,
    processed_by_step,
)
from distprof.merge.job.module_union import Module
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.merge.report import ExpertLayerStats, LoadsByStep
from distprof.merge.work.suspected_experts import found_by_some
from distprof.plain import dataclass


@computed_once
def expert_layers(analysis: Analysis) -> tuple[ExpertLayerStats, ...]:
    """Returns the layers in the order of the model."""
    complete = len(analysis.run.ranks) == analysis.run.world_size
    found = []
    for seen in seen_layers(analysis):
        times = layer_times(analysis).get(seen.module)
        layer = replace(
            _stats(seen, all_recorded=complete),
            times=times,
            empty=empty_slots(analysis, seen.hosts, times),
            counted=counted_routers(analysis).get(seen.module),
        )
        own = ep_times(analysis, seen.hosts, seen.iterations, seen.ep)
        loads = None if own is None else _loads_by_ep(seen, own.iterations)
        found.append(with_costs(layer, own, loads, seen.micro_batches))
    return tuple(found)


@computed_once
def seen_layers(analysis: Analysis) -> tuple[SeenLayer, ...]:
    """Returns what was recorded of each layer, in the order of the model."""
    union = analysis.union
    hosts: dict[tuple[int, str], list[ExpertHost]] = {}  # by module of the union, and name of the layer
    for column, on_ranks in expert_hosts(analysis):
        places = union.index(column)
        for host in on_ranks:
            hosts.setdefault((int(places[host.layer.row]), host.layer.name), []).append(host)
    size = analysis.layout.info.sizes.get
    return tuple(
        _what_was_seen(
            place, layer_label(union.modules[place], name), own, analysis.counted, size(own[0].layer.axis, 1)
        )
        for (place, name), own in sorted(hosts.items(), key=lambda item: item[0])
        if place not in found_by_some(analysis)
    )


def layer_label(module: Module, name: str) -> str:
    """Returns the module's label, or the layer's own name where it differs from the module's."""
    return module.label if module.row.name == name else name


@dataclass(frozen=True, eq=False)
class SeenLayer:
    """What was recorded of one layer: each token is in one of ``hosting`` and in one of ``sources``."""

    module: int  # of the union
    label: str
    hosts: Sequence[ExpertHost]
    ep: int  # the size of the axis that distributes the experts
    experts: int
    hosting: Sequence[ExpertHost]  # whose tokens count
    sources: Sequence[RoutedTokens]
    iterations: tuple[int, ...]  # those that all of them have
    routing: Routing | None
    counted_by_all: bool  # all hosts of the layer have counted their tokens

    @property
    def ep_of_experts(self) -> list[int]:
        """The ep coordinate that hosts each expert."""
        found = [0] * self.experts
        for host in self.hosts:
            for expert in host.layer.local_experts:
                found[expert] = host.ep
        return found

    @cached_property
    def micro_batches(self) -> list[MicroBatchLoads]:
        """The loads of single micro-batches; empty where steps have one, or those are not known."""
        hosts = self.hosting if self.counted_by_all else self.hosts
        return micro_batch_loads(hosts, self.sources, self.iterations, self.ep_of_experts, self.ep)


def _what_was_seen(
    module: int, label: str, hosts: Sequence[ExpertHost], counted: Mapping[int, CountedWork], ep: int
) -> SeenLayer:
    experts = max(host.layer.num_experts for host in hosts)
    counting = [host for host in hosts if host.seen is not None]
    hosting = distinct(
        counting, lambda host: (host.group, host.layer.local_experts), counted, are_slices=lambda host: host.sliced
    )
    sources = _sources(hosts)
    iterations = _common_iterations(hosting, sources)
    every = distinct_sources(sources, counted)
    return SeenLayer(
        module=module,
        label=label,
        hosts=hosts,
        ep=ep,
        experts=experts,
        hosting=hosting,
        sources=every,
        iterations=iterations,
        routing=layer_routing(every, iterations, experts) if sources and iterations else None,
        counted_by_all=bool(counting) and len(counting) == len(hosts),
    )


def _stats(seen: SeenLayer, *, all_recorded: bool) -> ExpertLayerStats:
    routing, is_whole, hosts = seen.routing, all_recorded and seen.counted_by_all, seen.hosts
    tokens = _tokens_of_all(seen)
    known = [count for count in tokens if count is not None]
    by_ep = _tokens_by_ep(seen.hosting, seen.iterations, seen.ep)
    if not seen.counted_by_all:
        by_ep = _kept_tokens_by_ep(hosts, tokens, seen.ep)
    dropped = _dropped(routing, sum(known) if is_whole else None)
    chosen = tuple(routing.routed.tolist()) if routing else ()
    lost = routing.lost if routing else 0
    layer = ExpertLayerStats(
        name=seen.label,
        num_experts=seen.experts,
        top_k=max(host.layer.top_k for host in hosts) or None,
        steps=len(seen.iterations),
        tokens=tokens,
        expert_ranks=_expert_ranks(hosts, seen.experts),
        ep_tokens=by_ep,
        ep_max_over_mean=_max_over_mean(by_ep),
        max_over_mean=_max_over_mean(tokens),
        hottest=tokens.index(max(known)) if any(known) else None,
        dead=tuple(expert for expert, count in enumerate(tokens) if count == 0),
        routed=chosen,
        dropped=dropped,
        drop_rate=None if dropped is None or not sum(chosen) + lost else dropped / (sum(chosen) + lost),
        aux_loss=routing.aux_loss if routing else None,
        lost=lost,
        guessed=any(host.layer.guessed for host in hosts),
        breach=_breach(seen) if is_whole else "",
        ep_starts=first_experts(seen.ep_of_experts, seen.ep),
        capacity=routing.capacity if routing else None,
    )
    return _with_balance(layer, seen, is_whole=is_whole)


def _with_balance(layer: ExpertLayerStats, seen: SeenLayer, *, is_whole: bool) -> ExpertLayerStats:
    """Adds how unequal the loads are, over all steps and step by step."""
    layer = replace(layer, load=load_metrics(layer.tokens), ep_load=load_metrics(layer.ep_tokens))
    by_step = _loads_by_step(seen)
    if by_step is None:
        return layer
    steps = over_steps(seen.iterations, by_step)
    dropped = dropped_by_step(seen.sources, seen.iterations, by_step if is_whole else None)
    chosen = chosen_by_step(seen.sources, seen.iterations).tolist() if dropped else []
    rates = tuple(lost / every if every else None for lost, every in zip(dropped, chosen, strict=True))
    return replace(
        layer,
        over_steps=replace(steps, dropped=dropped, drop_rate=rates, ep=_ep_by_step(seen)),
        micro_batches=micro_batches(seen.micro_batches, seen.iterations, seen.experts),
        placement=better_placement(by_step, seen.ep_of_experts, seen.ep),
    )


def _tokens_of_all(seen: SeenLayer) -> tuple[int | None, ...]:
    """Returns the tokens by global expert: processed, and kept by the routers where those were not counted."""
    if not seen.hosting:
        return _kept_tokens(seen.routing, seen.experts)
    tokens = _tokens(seen.hosting, seen.iterations, seen.experts)
    return tokens if seen.counted_by_all else _filled(tokens, seen.routing)


def _expert_ranks(hosts: Sequence[ExpertHost], experts: int) -> tuple[tuple[int, ...], ...]:
    where: list[list[int]] = [[] for _ in range(experts)]
    for host in hosts:
        for expert in host.layer.local_experts:
            where[expert].extend(host.ranks)
    return tuple(tuple(sorted(ranks)) for ranks in where)


def _breach(seen: SeenLayer) -> str:
    if not seen.hosting or not seen.sources:
        return ""
    return find_breach(seen.label, seen.hosting, seen.sources, seen.iterations, seen.experts)


def _loads_by_step(seen: SeenLayer) -> FloatArray | None:
    """Returns the loads as (iterations, experts): processed by all hosts, or else kept by the routers; None where
    neither is known.
    """
    if not seen.iterations:
        return None
    if seen.counted_by_all:
        return processed_by_step(seen.hosting, seen.iterations, seen.experts)
    return kept_by_step(seen.sources, seen.iterations, seen.experts) if seen.sources else None


def _ep_by_step(seen: SeenLayer) -> LoadsByStep | None:
    """Returns how unequal the ep ranks are by step; None where experts are not distributed, or a load is not known."""
    loads = _loads_by_ep(seen, seen.iterations) if seen.ep > 1 else None
    return None if loads is None else measures_by_step(loads.T)


def _loads_by_ep(seen: SeenLayer, iterations: tuple[int, ...]) -> FloatArray | None:
    """Returns the loads as (ep ranks, iterations); None where a load is not known in one of the ``iterations``."""
    by_step = _loads_by_step(seen)
    if by_step is None or seen.iterations != iterations or not np.isfinite(by_step).all():
        return None
    places = np.array(seen.ep_of_experts)
    return np.stack([by_step[:, places == place].sum(axis=1) for place in range(seen.ep)])


def _sources(hosts: Sequence[ExpertHost]) -> list[RoutedTokens]:
    """Returns the routing of all ranks that timed a step; none where one of these ranks has no routing."""
    sources = [host.source for host in hosts if host.source is not None]
    return sources if len(sources) == sum(host.timed * len(host.ranks) for host in hosts) else []


def _common_iterations(hosts: Sequence[ExpertHost], sources: Sequence[RoutedTokens]) -> tuple[int, ...]:
    """Returns the iterations that all hosts and all sources have."""
    seen = [set(iterations) for iterations in {host.iterations for host in hosts}]
    seen += [common_iterations(sources)] if sources else []
    return tuple(sorted(set.intersection(*seen))) if seen else ()


def _kept_tokens(routing: Routing | None, experts: int) -> tuple[int | None, ...]:
    """Returns the tokens that routers sent to each expert and did not drop."""
    if routing is None or routing.kept is None:
        return (None,) * experts
    return tuple(routing.kept.tolist())


def _filled(tokens: tuple[int | None, ...], routing: Routing | None) -> tuple[int | None, ...]:
    """Returns the tokens, with those of experts that no host counted by what routers sent them, where that is known:
    what was kept, and zero for an expert that was never chosen.
    """
    if routing is None:
        return tokens
    sent = routing.kept if routing.kept is not None else np.where(routing.routed == 0, 0, -1)
    return tuple(
        int(own) if count is None and own >= 0 else count for count, own in zip(tokens, sent.tolist(), strict=True)
    )


def _dropped(routing: Routing | None, processed: int | None) -> int | None:
    """Returns how many of the chosen tokens were dropped; ``processed`` is the sum over all experts, where known."""
    if routing is None or routing.handed:
        return None
    chosen = int(routing.routed.sum()) + routing.lost
    kept = int(routing.kept.sum()) if routing.kept is not None else processed
    return chosen - kept if kept is not None and kept <= chosen else None


def _kept_tokens_by_ep(hosts: Sequence[ExpertHost], tokens: Sequence[int | None], size: int) -> tuple[int | None, ...]:
    """Returns ``tokens`` of the experts, summed by the coordinate that hosts them; empty where there is only one."""
    if size == 1 or None in tokens:
        return ()
    hosted: dict[int, set[int]] = {}
    for host in hosts:
        hosted.setdefault(host.ep, set()).update(host.layer.local_experts)
    return tuple(
        sum(tokens[expert] or 0 for expert in hosted[place]) if place in hosted else None for place in range(size)
    )


def _tokens_by_ep(hosts: Sequence[ExpertHost], iterations: tuple[int, ...], size: int) -> tuple[int | None, ...]:
    """Returns the tokens by coordinate on the axis that distributes the experts; empty where there is only one."""
    if size == 1 or not iterations:
        return ()
    tokens: list[int | None] = [None] * size
    for host in hosts:
        tokens[host.ep] = (tokens[host.ep] or 0) + sum(host.tokens(iterations).tolist())
    return tuple(tokens)


def _max_over_mean(tokens: Sequence[int | None]) -> float | None:
    """Returns max / mean of the known loads; None where there is no token."""
    known = [count for count in tokens if count is not None]
    return max(known) * len(known) / sum(known) if sum(known) else None


def _tokens(hosts: Sequence[ExpertHost], iterations: tuple[int, ...], experts: int) -> tuple[int | None, ...]:
    """Returns the tokens by global expert; None for an expert that no host has."""
    tokens: list[int | None] = [None] * experts
    if iterations:
        for host in hosts:
            for expert, count in zip(host.layer.local_experts, host.tokens(iterations).tolist(), strict=True):
                tokens[expert] = (tokens[expert] or 0) + count
    return tuple(tokens)
