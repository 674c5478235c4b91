"""The rows of ``distprof top`` as text: one for each rank, or for each host where there are many ranks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distprof.launcher.daemon.job_view import JobView, RankView
from distprof.launcher.daemon.slow_rank.wording import sentence
from distprof.launcher.daemon.status import RankStatus
from distprof.merge.quantities import NOT_AVAILABLE, byte_size, duration
from distprof.printable import on_one_line
from distprof.rank_names import rank_names

COLUMNS = (
    *("rank", "place", "host", "iteration", "it/s", "phase", "module", "collective", "data wait", "waits", "memory"),
    *("lag", "slowest", "state"),
)
#: Columns of numbers.
RIGHT = frozenset({"iteration", "it/s", "data wait", "waits", "memory", "lag", "slowest"})
#: Above this number of ranks, those of one host are one row.
MOST_RANKS = 64
#: What was looked at before this time is marked with its age.
_OLD_S = 2.0
_LAST = float("inf")
#: What is said before the first beat of a rank.
NOT_BEGUN = "no rank has started yet: a rank is seen from the first call of its model on"

_KEYS: dict[str, Callable[[RankView], tuple[object, ...]]] = {
    "rank": lambda one: (one.status.rank,),
    "host": lambda one: (one.status.host, one.status.rank),
    "iteration": lambda one: (one.status.iteration, one.status.rank),
    "rate": lambda one: (_LAST if one.iterations_per_s is None else one.iterations_per_s, one.status.rank),
    "lag": lambda one: (-(one.lag or 0), one.status.rank),
    "slowest": lambda one: (-(one.status.slowest_in or 0), one.status.rank),
    "data": lambda one: (-(one.status.data_ns or 0), one.status.rank),
    "wait": lambda one: (-(one.status.wait_share or 0), one.status.rank),
    "memory": lambda one: (-(_memory(one) or 0), one.status.rank),
}
SORT_KEYS = tuple(_KEYS)


class Row(NamedTuple):
    """The cells of one row, as in :data:`COLUMNS`, and its mark."""

    cells: tuple[str, ...]
    mark: str


def rows(job: JobView, sort: str) -> list[Row]:
    """Returns the rows of a job in order; of many ranks one row for each host, and one for each rank with a mark."""
    ranks = sorted(job.ranks, key=_KEYS[sort])
    if len(ranks) <= MOST_RANKS:
        return [_rank_row(rank) for rank in ranks]
    hosts: dict[str, list[RankView]] = {}
    for rank in ranks:
        hosts.setdefault(rank.status.host, []).append(rank)
    return [
        row
        for host, members in hosts.items()
        for row in (_host_row(host, members), *(_rank_row(rank) for rank in members if rank.mark not in ("", "ended")))
    ]


def heading(job: JobView) -> str:
    """Returns a line about the whole job."""
    if not job.ranks:
        return NOT_BEGUN
    running = [rank for rank in job.ranks if rank.lag is not None]
    front = max((rank.status.iteration for rank in running), default=None)
    parts = [f"{len(running)} of {job.world_size} ranks run"]
    parts += [f"iteration {front}"] if front is not None else []
    parts += [f"{rank_names(job.missing)} not heard of"] if job.missing else []
    parts += [sentence(job.slowest)] if job.slowest is not None else []
    parts += [on_one_line(f"stands still, {job.hang.kind}: {job.hang.cause}")] if job.hang is not None else []
    return ", ".join(parts)


def _rank_row(one: RankView) -> Row:
    status = one.status
    cells = (
        str(status.rank),
        status.place or "-",
        status.host,
        str(status.iteration),
        NOT_AVAILABLE if one.iterations_per_s is None else f"{one.iterations_per_s:.4g}",
        _aged(status.phase or status.state, status.activity_age_s),
        status.module or "-",
        collective(status) or "-",
        NOT_AVAILABLE if status.data_ns is None else duration(status.data_ns),
        NOT_AVAILABLE if status.wait_share is None else f"{status.wait_share:.0%}",
        byte_size(_memory(one)),
        "-" if one.lag is None else str(one.lag),
        f"{status.slowest_in} of {status.sampled}" if status.sampled else NOT_AVAILABLE,
        _state(one),
    )
    return Row(tuple(on_one_line(cell) for cell in cells), one.mark)


def _host_row(host: str, members: Sequence[RankView]) -> Row:
    numbers = [one.status.iteration for one in members]
    paces = [one.iterations_per_s for one in members if one.iterations_per_s is not None]
    memory = [size for one in members if (size := _memory(one)) is not None]
    lags = [one.lag for one in members if one.lag is not None]
    marks = [one.mark for one in members if one.mark]
    cells = (
        rank_names(one.status.rank for one in members),
        f"{len(members)} ranks",
        host,
        str(numbers[0]) if len(set(numbers)) == 1 else f"{min(numbers)}-{max(numbers)}",
        f"{statistics.median(paces):.4g}" if paces else NOT_AVAILABLE,
        *("-", "-", "-", "-", "-"),
        byte_size(max(memory, default=None)),
        str(max(lags)) if lags else "-",
        "-",
        ", ".join(f"{marks.count(mark)} {mark}" for mark in dict.fromkeys(marks)),
    )
    return Row(tuple(on_one_line(cell) for cell in cells), "")


def collective(status: RankStatus) -> str:
    """Returns op, number and group of the collective that runs, or ran last; empty without one.

    It is just "collective 12 of dp" where the op is not known.
    """
    if status.collective_number is None:
        return ""
    done = "" if status.collective_runs else ", done"
    return f"{status.collective_op or 'collective'} {status.collective_number} of {status.collective_group}{done}"


def _aged(text: str, age_s: float | None) -> str:
    return text if age_s is None or age_s < _OLD_S else f"{text} ({age_s:.0f} s ago)"


def _state(one: RankView) -> str:
    if one.mark == "stuck":
        return f"stuck for {one.status.age_s:.0f} s"
    return f"{one.mark}: {one.status.error}" if one.mark and one.status.error else one.mark


def _memory(one: RankView) -> int | None:
    """Returns the peak of a device where it was measured, else what the process holds."""
    on_device = one.status.device not in ("", "cpu")
    return one.status.peak_bytes if on_device and one.status.peak_bytes else one.status.resident_bytes
