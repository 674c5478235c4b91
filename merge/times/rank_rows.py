"""One row for each rank: its coordinates, and the medians of its own timed steps."""

from __future__ import annotations

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import ArraySums
from distprof.merge.collectives.own_times import lossy_iterations, rank_waits
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.merge.report import RankRow
from distprof.merge.stats import to_number
from distprof.merge.times.phase_tables import phase_tables
from distprof.merge.work.replica_check import certain_totals
from distprof.merge.work.utilization import compute_utilizations
from distprof.plain import dataclass
from distprof.records import PHASES, Memory, MemoryUnknown


@computed_once
def rank_rows(analysis: Analysis) -> tuple[RankRow, ...]:
    """Returns one row for each rank, ascending."""
    sums, phases = ArraySums(), _phase_times(analysis)
    unseen = _Phases(dict.fromkeys(PHASES), None)
    return tuple(_row(analysis, data, sums, phases.get(data.rank, unseen)) for data in analysis.ranks)


@dataclass(frozen=True)
class _Phases:
    """The times of the phases of one rank in ns."""

    medians: dict[str, float | None]
    longest_data: float | None


def _phase_times(analysis: Analysis) -> dict[int, _Phases]:
    """Returns the phases by rank, of the ranks that timed a step."""
    tables = phase_tables(analysis)
    unseen = np.full(len(tables.ranks), np.nan)
    medians = [map(to_number, tables.medians.get(phase, unseen).tolist()) for phase in PHASES]
    longest = np.fmax.reduce(tables.phases["data"], axis=1) if "data" in tables.phases else unseen
    return {
        rank: _Phases(dict(zip(PHASES, own, strict=True)), to_number(most))
        for rank, most, *own in zip(tables.ranks, longest.tolist(), *medians, strict=True)
    }


def _row(analysis: Analysis, data: RankData, sums: ArraySums, phases: _Phases) -> RankRow:
    window = analysis.windows.get(data.rank)
    mfu, hfu = compute_utilizations(analysis).by_rank.get(data.rank, (None, None))
    found = data.memories.get(analysis.window)
    memory = found if isinstance(found, Memory) else None
    return RankRow(
        rank=data.rank,
        coordinates=analysis.layout.coordinates[data.rank],
        cohort=analysis.cohorts[data.rank],
        host=data.header.host,
        complete=not data.why_incomplete(analysis.mode, analysis.window),
        steps=window.steps if window else 0,
        iteration_ns=window.median_ns if window else None,
        phases_ns=phases.medians,
        parameter_bytes=memory.parameter_bytes if memory else None,
        gradient_bytes=memory.gradient_bytes if memory else None,
        optimizer_bytes=memory.optimizer_bytes if memory else None,
        memory_unknown=found.reason if isinstance(found, MemoryUnknown) else "",
        peak_memory_bytes=window.peak_memory_bytes if window else None,
        memory_source=window.memory_source if window else "",
        params=certain_totals(analysis).per_rank.get(data.rank),
        fwd_macs=sums.of(window.counts.forward_macs) if window and window.counts else None,
        mfu=mfu,
        hfu=hfu,
        step_own_ns=_own_ns(analysis, data.rank, window) if window else (),
        data_max_ns=phases.longest_data,
        step_iterations=window.iterations if window else (),
        step_durations_ns=tuple(window.durations_ns.tolist()) if window else (),
        step_processor_waits_ns=tuple(map(to_number, window.processor_waits_ns.tolist())) if window else (),
    )


def _own_ns(analysis: Analysis, rank: int, window: Window) -> tuple[int, ...]:
    """Returns the time of each timed step without the waits in collectives; empty where these are not known."""
    waits = rank_waits(analysis).get(rank)
    if waits is None or lossy_iterations(analysis) & set(window.iterations):
        return ()
    kept = np.isin(waits.iteration, window.iterations)
    lost = np.zeros(window.steps, np.int64)
    np.add.at(lost, np.searchsorted(window.iterations, waits.iteration[kept]), waits.wait_ns[kept])
    return tuple(np.maximum(window.durations_ns - lost, 0).tolist())
