"""One row a rank: where it stands, and the medians of its own timed steps."""

from __future__ import annotations

from collections.abc import Mapping

from distprof.merge.job.topology import JobTopology
from distprof.merge.load.rank import RankData
from distprof.merge.load.run import LoadedRun
from distprof.merge.load.window import Window
from distprof.merge.report import RankRow
from distprof.merge.stats import of_steps
from distprof.merge.work.parameter_totals import Totals
from distprof.records import PHASES, Memory, MemoryUnknown


def rank_rows(
    run: LoadedRun, layout: JobTopology, totals: Totals, utilizations: Mapping[int, tuple[float, float]]
) -> tuple[RankRow, ...]:
    """Ranks ascending; cohorts are numbered in the order of their coordinates.  ``utilizations``: MFU and HFU."""
    roles = sorted({layout.role(data.rank) for data in run.ranks})
    number = {role: index for index, role in enumerate(roles)}
    return tuple(
        _row(
            data,
            run.mode,
            layout.coordinates[data.rank],
            number[layout.role(data.rank)],
            totals,
            utilizations.get(data.rank, (None, None)),
        )
        for data in run.ranks
    )


def _row(
    data: RankData,
    mode: str,
    coordinates: dict[str, int],
    cohort: int,
    totals: Totals,
    utilization: tuple[float | None, float | None],
) -> RankRow:
    window = data.windows.get(mode)
    memory = data.memory if isinstance(data.memory, Memory) else None
    return RankRow(
        rank=data.rank,
        coordinates=coordinates,
        cohort=cohort,
        host=data.header.host,
        complete=not data.why_incomplete(mode),
        steps=window.steps if window else 0,
        iteration_ns=of_steps(window.durations_ns) if window and window.steps else None,
        phases_ns={phase: _phase_median(window, phase) for phase in PHASES},
        parameter_bytes=memory.parameter_bytes if memory else None,
        gradient_bytes=memory.gradient_bytes if memory else None,
        optimizer_bytes=memory.optimizer_bytes if memory else None,
        memory_unknown=data.memory.reason if isinstance(data.memory, MemoryUnknown) else "",
        peak_memory_bytes=window.peak_memory_bytes if window else None,
        memory_source=window.memory_source if window else "",
        params=totals.per_rank.get(data.rank),
        fwd_macs=float(window.counts.forward_macs.sum()) if window and window.counts else None,
        mfu=utilization[0],
        hfu=utilization[1],
        step_iterations=window.iterations if window else (),
        step_durations_ns=tuple(window.durations_ns.tolist()) if window else (),
    )


def _phase_median(window: Window | None, phase: str) -> float | None:
    """Over the steps in which the phase was seen."""
    if window is None or phase not in window.phases_ns:
        return None
    return of_steps(window.phases_ns[phase])
