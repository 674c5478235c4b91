"""Reports of many ranks, made of a small one: analysing the shards of 4,096 ranks takes a minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from distprof.merge.report import HostRow, RankRow, Report, SkewMap

_RANKS_OF_HOST = 8


def grown(report: Report, ranks: int, *, slow_alone: bool = False) -> Report:
    """Returns ``report`` with ``ranks`` ranks: copies of its own, with times and places of their own.

    With ``slow_alone`` the named rank has no copies.
    """
    random = Random(0)
    few = len(report.ranks)
    named = {one.rank for one in report.verdict.ranks.named} if slow_alone else set()
    chosen = [rank if rank < few else (rank + (rank % few in named)) % few for rank in range(ranks)]
    tp = report.topology.sizes["tp"]
    rows = tuple(_row(report.ranks[of], rank, tp, random) for rank, of in enumerate(chosen))
    run = replace(report.run, ranks=tuple(range(ranks)), world_size=ranks, hosts=tuple({row.host for row in rows}))
    skew = replace(report.skew, map=_map(report.skew.map, chosen, random))
    hosts = tuple(_host(rows[first : first + _RANKS_OF_HOST]) for first in range(0, ranks, _RANKS_OF_HOST))
    sizes = {**report.topology.sizes, "dp": report.topology.sizes["dp"] * ranks // few}
    return replace(report, run=run, ranks=rows, skew=skew, hosts=hosts, topology=replace(report.topology, sizes=sizes))


def _row(row: RankRow, rank: int, tp: int, random: Random) -> RankRow:
    return replace(
        row,
        rank=rank,
        coordinates={**row.coordinates, "tp": rank % tp, "dp": rank // tp},
        host=f"node{rank // _RANKS_OF_HOST}",
        iteration_ns=_near(row.iteration_ns, random),
        phases_ns={phase: _near(time, random) for phase, time in row.phases_ns.items()},
        step_durations_ns=tuple(round(_near(time, random) or 0) for time in row.step_durations_ns),
        peak_memory_bytes=round(_near(row.peak_memory_bytes, random) or 0),
    )


def _map(skew: SkewMap, chosen: Sequence[int], random: Random) -> SkewMap:
    def repeated(rows: tuple[tuple[float | None, ...], ...]) -> tuple[tuple[float | None, ...], ...]:
        return tuple(tuple(_near(value, random) for value in rows[row]) for row in chosen)

    return replace(
        skew, ranks=tuple(range(len(chosen))), self_ns=repeated(skew.self_ns), excess_ns=repeated(skew.excess_ns)
    )


def _host(rows: tuple[RankRow, ...]) -> HostRow:
    first = rows[0]
    ranks = tuple(row.rank for row in rows)
    return HostRow(first.host, ranks, (), first.iteration_ns, None, None, None, first.peak_memory_bytes)


def _near(value: float | None, random: Random) -> float | None:
    return None if value is None else value * random.uniform(0.95, 1.05)
