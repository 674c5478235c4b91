"""One row for each rank: its coordinates, and the medians of its own timed steps."""

from __future__ import annotations

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import ArraySums
from distprof.merge.collectives.own_times import lossy_iterations, rank_waits
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.merge.report import RankRow
from distprof.merge.stats import median_of_steps, to_number
from distprof.merge.work.replica_check import certain_totals
from distprof.merge.work.utilization import compute_utilizations
from distprof.records import PHASES, Memory, MemoryUnknown


@computed_once
def rank_rows(analysis: Analysis) -> tuple[RankRow, ...]:
    """Returns one row for each rank, ascending."""
    sums = ArraySums()
    return tuple(_row(analysis, data, sums) for data in analysis.ranks)


def _row(analysis: Analysis, data: RankData, sums: ArraySums) -> RankRow:
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
        iteration_ns=median_of_steps(window.durations_ns) if window and window.steps else None,
        phases_ns={phase: _phase_median(window, phase) for phase in PHASES},
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
        data_max_ns=_longest(window, "data"),
        step_iterations=window.iterations if window else (),
        step_durations_ns=tuple(window.durations_ns.tolist()) if window else (),
        step_processor_waits_ns=tuple(map(to_number, window.processor_waits_ns.tolist())) if window else (),
    )


def _phase_median(window: Window | None, phase: str) -> float | None:
    """Returns the median over the steps in which the phase was seen."""
    if window is None or phase not in window.phases_ns:
        return None
    return median_of_steps(window.phases_ns[phase])


def _longest(window: Window | None, phase: str) -> float | None:
    if window is None or phase not in window.phases_ns or np.isnan(window.phases_ns[phase]).all():
        return None
    return float(np.nanmax(window.phases_ns[phase]))


def _own_ns(analysis: Analysis, rank: int, window: Window) -> tuple[int, ...]:
    """Returns the time of each timed step without the waits in collectives; empty where these are not known."""
    waits = rank_waits(analysis).get(rank)
    if waits is None or lossy_iterations(analysis) & set(window.iterations):
        return ()
    kept = np.isin(waits.iteration, window.iterations)
    lost = np.zeros(window.steps, np.int64)
    np.add.at(lost, np.searchsorted(window.iterations, waits.iteration[kept]), waits.wait_ns[kept])
    return tuple(np.maximum(window.durations_ns - lost, 0).tolist())
