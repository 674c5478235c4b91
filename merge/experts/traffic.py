"""Which ranks send tokens to which: the choices of each rank's routers, and the ranks that host the experts.

    choices of a source rank by global expert -> the rank of its ep group that hosts the expert -> sums over layers

The ep group of a rank is found by order: of the hosts with one ep coordinate and one place in tensor and pipeline
parallelism, the first of each ep coordinate form a group, then the second, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.experts.load import SeenLayer, seen_layers
from distprof.merge.experts.recorded.hosts import ExpertHost
from distprof.merge.experts.recorded.routing import RoutedTokens
from distprof.merge.load.parameters import kind_of
from distprof.merge.report import ExpertTraffic
from distprof.records import EXPERT, ROUTER

#: A dispatch and a combine; backward has both as well.
_WAYS, _WAYS_IN_TRAINING = 2, 4
_SHOWN_UP_TO = 256  # ranks


def expert_traffic(analysis: Analysis) -> ExpertTraffic | None:
    """Returns the traffic of one iteration, None where no layer with distributed experts has known routing."""
    layers = [seen for seen in seen_layers(analysis) if seen.ep > 1 and seen.routing is not None]
    if not layers:
        return None
    ranks = sorted({rank for seen in layers for host in seen.hosts for rank in host.ranks})
    place = {rank: at for at, rank in enumerate(ranks)}
    sums = np.zeros((len(ranks), len(ranks)))
    for seen in layers:
        _add_layer(sums, seen, place, analysis)
    total = float(sums.sum())
    if not total:
        return None
    hosts = np.array([data.header.host for data in analysis.ranks if data.rank in place])
    leaving = total - float(np.trace(sums))
    width = _token_bytes(layers[0])
    ways = _WAYS_IN_TRAINING if analysis.trains else _WAYS
    return ExpertTraffic(
        ranks=tuple(ranks),
        tokens=tuple(map(tuple, sums.tolist())) if len(ranks) <= _SHOWN_UP_TO else (),
        token_bytes=width,
        bytes=None if width is None else ways * width * leaving,
        elsewhere_share=leaving / total,
        other_host_share=float(sums[hosts[:, None] != hosts[None, :]].sum()) / total,
    )


def _add_layer(sums: FloatArray, seen: SeenLayer, place: Mapping[int, int], analysis: Analysis) -> None:
    group_of, host_of = _ep_groups(seen.hosts, analysis, seen.experts)
    for source in seen.sources:
        tokens = _kept(source, seen.iterations) / len(seen.iterations)
        targets = host_of.get(group_of.get(source.rank, -1), [])
        hosted = [expert for expert, target in enumerate(targets[: len(tokens)]) if target >= 0]
        np.add.at(sums[place[source.rank]], [place[targets[expert]] for expert in hosted], tokens[hosted])


def _kept(source: RoutedTokens, iterations: Sequence[int]) -> FloatArray:
    """Returns the choices by global expert, less the dropped ones where these are known."""
    dropped = source.dropped_at(iterations)
    found: FloatArray = source.at(iterations).sum(axis=0, dtype=np.float64)
    return found if dropped is None else found - dropped.sum(axis=0, dtype=np.float64)


def _ep_groups(
    hosts: Sequence[ExpertHost], analysis: Analysis, experts: int
) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Returns the number of each rank's ep group, and by group the rank that hosts each expert, -1 where none does."""
    seen: dict[tuple[tuple[int, ...], int], int] = {}
    numbers: dict[tuple[tuple[int, ...], int], int] = {}
    group_of: dict[int, int] = {}
    host_of: dict[int, list[int]] = {}
    for rank, host in sorted(((rank, one) for one in hosts for rank in one.ranks), key=lambda pair: pair[0]):
        apart = analysis.layout.piece(rank, ("pp", "tp"))
        order = seen[apart, host.ep] = seen.get((apart, host.ep), -1) + 1
        group_of[rank] = numbers.setdefault((apart, order), len(numbers))
        targets = host_of.setdefault(group_of[rank], [-1] * experts)
        for expert in host.layer.local_experts:
            targets[expert] = rank
    return group_of, host_of


def _token_bytes(seen: SeenLayer) -> int | None:
    """Returns the bytes of a token: a router has a weight for each expert and element of its input."""
    host = seen.hosts[0]
    inside = host.data.tree.subtree(host.layer.row)
    own = [parameter for parameter in host.data.parameters.counted if parameter.row in inside]
    routers = [parameter.global_numel for parameter in own if kind_of(parameter) == ROUTER]
    sizes = [parameter.itemsize for parameter in own if kind_of(parameter) == EXPERT]
    if not routers or not sizes or max(routers) % seen.experts:
        return None
    return max(routers) // seen.experts * sizes[0]
