"""The tables with rows for each rank: ranks, their timed steps, and their memory."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from distprof.merge.export.tables.table import Maker, RowTable, Table, make_table
from distprof.merge.report import HOLDINGS, RankRow, Report
from distprof.records import PHASES


def ranks_table(report: Report) -> Table:
    """Returns the table of ranks; it has a column for each axis of the job."""
    waits = {wait.rank: wait for wait in report.collectives.waits}
    named = {straggler.rank for straggler in report.verdict.ranks.named}

    def wait_of(row: RankRow, field: str) -> float | None:
        return getattr(waits[row.rank], field) if row.rank in waits else None

    makers: list[Maker[RankRow]] = [
        Maker("rank", "number of the rank"),
        Maker("host", "name of its machine"),
        *(_coordinate(axis) for axis in report.topology.sizes),
        Maker("cohort", "number of its cohort: the ranks that do equal work"),
        Maker("named", "whether the verdict names it", lambda row: row.rank in named),
        Maker("complete", "whether it recorded the whole window"),
        Maker("timed_steps", "timed iterations that it recorded", lambda row: row.steps),
        Maker("iteration_ns", "wall time, median"),
        *(_phase(phase) for phase in PHASES),
        Maker("wait_ns", "wait in collectives, median", lambda row: wait_of(row, "wait_ns")),
        Maker("lag_ns", "how much later than the median member it enters collectives", lambda r: wait_of(r, "lag_ns")),
        Maker("last_arrivals", "in how many collectives it arrived last", lambda row: wait_of(row, "last")),
        Maker("parameter_bytes", "parameters between two iterations, local"),
        Maker("gradient_bytes", "gradients between two iterations, local"),
        Maker("optimizer_bytes", "optimizer state between two iterations, local"),
        Maker("peak_memory_bytes", "largest memory"),
        Maker("memory_source", "how the largest memory was measured"),
        Maker("params", "number of parameters that it holds or shares", counts=True),
        Maker("fwd_macs", "MACs of forward"),
        Maker("mfu", "model flops utilization, as a share of 1"),
        Maker("hfu", "hardware flops utilization, as a share of 1"),
    ]
    return make_table("ranks", "one recorded rank", report.ranks, makers)


def _coordinate(axis: str) -> Maker[RankRow]:
    return Maker(axis, f"coordinate on {axis}", lambda row: row.coordinates.get(axis))


def _phase(phase: str) -> Maker[RankRow]:
    return Maker(f"{phase}_ns", f"phase {phase}, median; empty: not seen", lambda row: row.phases_ns.get(phase))


class _Step(NamedTuple):
    rank: int
    iteration: int
    duration_ns: int
    processor_wait_ns: float | None


def _step_rows(report: Report) -> Iterator[_Step]:
    for row in report.ranks:
        for iteration, duration, waited in zip(
            row.step_iterations, row.step_durations_ns, row.step_processor_waits_ns, strict=True
        ):
            yield _Step(row.rank, iteration, duration, waited)


STEPS: RowTable[_Step] = RowTable(
    "steps",
    "one timed iteration of one rank",
    _step_rows,
    (
        Maker("rank", "number of the rank"),
        Maker("iteration", "number of the iteration, from 0"),
        Maker("duration_ns", "wall time"),
        Maker("processor_wait_ns", "how long the rank was ready while no processor was free"),
    ),
)


class _Holding(NamedTuple):
    rank: int
    what: str
    bytes: int
    cohort_median_bytes: float


def _holdings(report: Report) -> Iterator[_Holding]:
    for what, name in HOLDINGS.items():
        held: dict[int, dict[int, int]] = {}  # by cohort and rank
        for row in report.ranks:
            if getattr(row, name) is not None:
                held.setdefault(row.cohort, {})[row.rank] = getattr(row, name)
        middle = {cohort: float(median(own.values())) for cohort, own in held.items()}
        for row in report.ranks:
            if row.rank in held.get(row.cohort, {}):
                yield _Holding(row.rank, what, held[row.cohort][row.rank], middle[row.cohort])


MEMORY: RowTable[_Holding] = RowTable(
    "memory",
    "one kind of memory on one rank, where it was measured",
    _holdings,
    (
        Maker("rank", "number of the rank"),
        Maker("what", ", ".join(HOLDINGS)),
        Maker("bytes", "held by the rank"),
        Maker("cohort_median_bytes", "median of its cohort, the rank included"),
    ),
)
