"""The load of every expert of every MoE layer, by its global id, over all ranks and timed steps.

    loads (steps, local experts) of each rank -> the steps that all hosts recorded -> sums by (layer, global expert)

Ranks that host the same expert for different tokens (expert data parallel) add up.  Of the ranks of one tp group that
host the same experts only the lowest recorded one counts where they process the same tokens: where tp cuts the experts,
or where every load is the same on all of them and their router saw all tokens (under sequence parallel it sees a part).

Beside what experts processed stands what routers chose (distprof.merge.experts.routing).  Where what they processed
cannot be
seen on their ranks (they run on padding, or fetch the tokens themselves), it is what routers chose and nothing dropped.

    dropped = chosen - kept, where the ranks that chose saw that, else chosen - processed, if all ranks told
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.experts.hosts import ExpertHost, expert_hosts
from distprof.merge.experts.routing import Routing, Source, common_iterations, layer_routing
from distprof.merge.job.module_union import Module
from distprof.merge.job.tp_duplicates import CountedRank
from distprof.merge.report import ExpertLayerStats


@computed_once
def expert_layers(analysis: Analysis) -> tuple[ExpertLayerStats, ...]:
    """Returns the layers in the order of the model."""
    run, union = analysis.run, analysis.union
    hosts: dict[tuple[int, str], list[ExpertHost]] = {}  # by module of the union, and what the layer calls itself
    for column, of_rank in enumerate(expert_hosts(analysis)):
        places = union.index(column)
        for host in of_rank:
            hosts.setdefault((int(places[host.layer.row]), host.layer.name), []).append(host)
    size = analysis.layout.info.sizes.get
    complete = len(run.ranks) == run.world_size
    return tuple(
        _stats(
            _label(union.modules[place], name),
            own,
            analysis.counted,
            size(own[0].layer.axis, 1),
            all_ranks_told=complete,
        )
        for (place, name), own in sorted(hosts.items(), key=lambda item: item[0])
    )


def _label(module: Module, name: str) -> str:
    """With the model in front where there are several; a layer that goes by another name than its module keeps it."""
    return module.label if module.row.name == name else name


def _stats(
    name: str, hosts: Sequence[ExpertHost], counted: Mapping[int, CountedRank], ep: int, *, all_ranks_told: bool
) -> ExpertLayerStats:
    experts = max(host.layer.num_experts for host in hosts)
    where: list[list[int]] = [[] for _ in range(experts)]
    for host in hosts:
        for expert in host.layer.local_experts:
            where[expert].append(host.data.rank)
    told = [host for host in hosts if host.seen is not None]
    heard = _heard(told, counted)
    sources = _sources(hosts)
    iterations = _iterations(heard, sources)
    routing = layer_routing(sources, counted, iterations, experts) if sources and iterations else None
    tokens = _tokens(heard, iterations, experts) if heard else _as_routed(routing, experts)
    known = [count for count in tokens if count is not None]
    total = sum(known)
    by_ep = _by_ep(heard, iterations, ep) if heard else _by_hosts(hosts, tokens, ep)
    dropped = _dropped(routing, total if all_ranks_told and len(told) == len(hosts) else None)
    chosen = tuple(routing.routed.tolist()) if routing else ()
    return ExpertLayerStats(
        name=name,
        num_experts=experts,
        top_k=max(host.layer.top_k for host in hosts) or None,
        steps=len(iterations),
        tokens=tokens,
        hosts=tuple(tuple(ranks) for ranks in where),
        ep_tokens=by_ep,
        ep_max_over_mean=_overload(by_ep),
        max_over_mean=_overload(tokens),
        hottest=tokens.index(max(known)) if total else None,
        dead=tuple(expert for expert, count in enumerate(tokens) if count == 0),
        routed=chosen,
        dropped=dropped,
        drop_rate=None if dropped is None or not sum(chosen) else dropped / sum(chosen),
        aux_loss=routing.aux_loss if routing else None,
    )


def _sources(hosts: Sequence[ExpertHost]) -> list[Source]:
    """Those of all ranks that timed a step; none where one of them did not see its routing."""
    sources = [host.source for host in hosts if host.source is not None]
    return sources if len(sources) == sum(host.timed for host in hosts) else []


def _iterations(heard: Sequence[ExpertHost], sources: Sequence[Source]) -> tuple[int, ...]:
    """Steps of which all tell."""
    seen = [set(iterations) for iterations in {host.iterations for host in heard}]
    seen += [common_iterations(sources)] if sources else []
    return tuple(sorted(set.intersection(*seen))) if seen else ()


def _as_routed(routing: Routing | None, experts: int) -> tuple[int | None, ...]:
    if routing is None or routing.kept is None:
        return (None,) * experts
    return tuple(routing.kept.tolist())


def _dropped(routing: Routing | None, processed: int | None) -> int | None:
    """Of what routers chose; ``processed`` by all experts, if that is known."""
    if routing is None:
        return None
    chosen = int(routing.routed.sum())
    kept = int(routing.kept.sum()) if routing.kept is not None else processed
    return chosen - kept if kept is not None and kept <= chosen else None


def _heard(hosts: Sequence[ExpertHost], counted: Mapping[int, CountedRank]) -> list[ExpertHost]:
    """All hosts, but of those that process the same tokens for the same experts only the first."""
    groups: dict[tuple[object, ...], list[ExpertHost]] = {}
    for host in hosts:
        groups.setdefault((host.group, host.layer.local_experts), []).append(host)
    return [host for group in groups.values() for host in (group[:1] if _same_tokens(group, counted) else group)]


def _same_tokens(group: Sequence[ExpertHost], counted: Mapping[int, CountedRank]) -> bool:
    first = group[0]
    if len(group) == 1 or first.cut:
        return True
    one = counted.get(first.data.rank)
    if one is not None and one.routes_own_tokens(first.layer):
        return False
    together = sorted(set.intersection(*(set(host.iterations) for host in group)))
    return all(np.array_equal(first.at(together), other.at(together)) for other in group[1:])


def _by_hosts(hosts: Sequence[ExpertHost], tokens: Sequence[int | None], size: int) -> tuple[int | None, ...]:
    """The same from the tokens of each expert, by the coordinate that hosts it."""
    if size == 1 or None in tokens:
        return ()
    hosted: dict[int, set[int]] = {}
    for host in hosts:
        hosted.setdefault(host.ep, set()).update(host.layer.local_experts)
    return tuple(
        sum(tokens[expert] or 0 for expert in hosted[place]) if place in hosted else None for place in range(size)
    )


def _by_ep(heard: Sequence[ExpertHost], iterations: tuple[int, ...], size: int) -> tuple[int | None, ...]:
    """Tokens by coordinate on the axis that spreads the experts; empty where there is but one."""
    if size == 1 or not iterations:
        return ()
    tokens: list[int | None] = [None] * size
    for host in heard:
        tokens[host.ep] = (tokens[host.ep] or 0) + sum(host.tokens(iterations).tolist())
    return tuple(tokens)


def _overload(tokens: Sequence[int | None]) -> float | None:
    """max / mean of what is known; None without a token."""
    known = [count for count in tokens if count is not None]
    return max(known) * len(known) / sum(known) if sum(known) else None


def _tokens(heard: Sequence[ExpertHost], iterations: tuple[int, ...], experts: int) -> tuple[int | None, ...]:
    tokens: list[int | None] = [None] * experts
    if iterations:
        for host in heard:
            for expert, count in zip(host.layer.local_experts, host.tokens(iterations).tolist(), strict=True):
                tokens[expert] = (tokens[expert] or 0) + count
    return tuple(tokens)
