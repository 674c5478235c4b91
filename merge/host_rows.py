"""One row for each host: where its ranks spend an iteration, beside the other hosts."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from distprof.merge.analysis import Analysis
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.report import HostRow, RankRow
from distprof.merge.skew.excess import cohort_excesses
from distprof.merge.skew.step_times import WHOLE
from distprof.merge.skew.verdict import rank_verdict
from distprof.merge.stats import nan_median, to_number
from distprof.merge.times.rank_rows import rank_rows


def host_rows(analysis: Analysis) -> tuple[HostRow, ...]:
    """Returns one row for each host, in the order of their first ranks."""
    members: dict[str, list[RankRow]] = {}
    for row in rank_rows(analysis):
        members.setdefault(row.host, []).append(row)
    own, named = _own_times(analysis), {one.rank for one in rank_verdict(analysis).named}
    return tuple(_row(host, rows, own, named) for host, rows in members.items())


def _row(host: str, rows: list[RankRow], own: dict[int, float], named: set[int]) -> HostRow:
    known = {row.rank: row.iteration_ns for row in rows if row.iteration_ns is not None}
    return HostRow(
        host=host,
        ranks=tuple(row.rank for row in rows),
        slow=tuple(row.rank for row in rows if row.rank in named),
        iteration_ns=_median(known.values()),
        own_ns=_median(own[rank] for rank in known if rank in own),
        wait_ns=_median(max(time - own[rank], 0.0) for rank, time in known.items() if rank in own),
        data_ns=_median(row.phases_ns.get("data") for row in rows),
        peak_memory_bytes=max((row.peak_memory_bytes for row in rows if row.peak_memory_bytes), default=None),
    )


def _own_times(analysis: Analysis) -> dict[int, float]:
    """Returns by rank its own time of an iteration; empty where waits are not known."""
    if why_no_own_times(analysis):
        return {}
    found = {}
    for excess in cohort_excesses(analysis):
        (whole,) = (number for number, place in enumerate(excess.times.places) if place.level == WHOLE)
        medians = nan_median(excess.times.times[whole])
        for rank, time in zip(excess.times.ranks, medians, strict=True):
            if (own := to_number(time)) is not None:
                found[rank] = own
    return found


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None
