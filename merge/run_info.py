"""Which run and ranks were merged, and the notes on the first page of the report."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from distprof.merge.analysis import Analysis
from distprof.merge.experts.invariant import breach_notes
from distprof.merge.experts.load import expert_layers
from distprof.merge.experts.unseen import unseen_notes
from distprof.merge.hang_rows import hang_notes
from distprof.merge.job.unknown_groups import group_notes
from distprof.merge.load.run import LoadedRun
from distprof.merge.reduced_windows import reduced_windows
from distprof.merge.report import RunInfo, WindowInfo
from distprof.merge.times.summary import work_notes
from distprof.merge.work.compiled_kernels import compiled_notes
from distprof.merge.work.exact_work import expert_notes
from distprof.merge.work.parameter_totals import evaluated_notes
from distprof.merge.work.replica_check import certain_totals, find_doubts
from distprof.merge.work.suspected_experts import suspect_notes
from distprof.merge.work.utilization import compute_utilizations
from distprof.rank_names import rank_names


def run_info(analysis: Analysis) -> RunInfo:
    """Returns which ranks were merged, which are missing, and the notes of all sections."""
    run, headers = analysis.run, [data.header for data in analysis.ranks]
    first = headers[0]
    return RunInfo(
        run_id=run.run_id,
        name=run.name,
        script=first.script,
        world_size=run.world_size,
        ranks=tuple(data.rank for data in run.ranks),
        missing_ranks=run.missing_ranks,
        incomplete={rank: why for rank, why in _incomplete(analysis) if why},
        device=first.device,
        device_name=first.device_name,
        hosts=tuple(sorted({header.host for header in headers})),
        torch=first.torch,
        mode=analysis.mode,
        without_data=tuple(data.rank for data in run.ranks if not data.windows),
        planned_timed_steps=max((plan.timed for plan in analysis.plans), default=0),
        window=analysis.window,
        windows=tuple(_window_info(run, number) for number in run.window_numbers),
        reduced_windows=reduced_windows(analysis),
        notes=tuple(_notes(analysis)),
    )


def _incomplete(analysis: Analysis) -> Iterator[tuple[int, str]]:
    for data in analysis.ranks:
        yield data.rank, data.why_incomplete(analysis.mode, analysis.window)


def _window_info(run: LoadedRun, number: int) -> WindowInfo:
    """Returns what the ranks recorded in the window with this number."""
    windows = [window for data in run.ranks if (window := data.windows.get((run.mode, number))) is not None]
    first, last = zip(*(window.span for window in windows), strict=True)
    times = [window.median_ns for window in windows if window.median_ns is not None]
    return WindowInfo(number, min(first), max(last), len(windows), float(median(times)) if times else None)


def _notes(analysis: Analysis) -> Iterator[str]:
    yield from hang_notes(analysis)
    yield from analysis.run.notes
    yield from analysis.layout.notes
    yield from find_doubts(analysis).notes
    yield from group_notes(analysis.unknown_groups, analysis.run.world_size)
    yield from analysis.layer_notes
    yield from expert_notes(analysis)
    yield from suspect_notes(analysis)
    yield from breach_notes(expert_layers(analysis))
    yield from unseen_notes(analysis)
    yield from certain_totals(analysis).notes
    yield from evaluated_notes(analysis)
    yield from work_notes(analysis)
    yield from compiled_notes(analysis)
    yield from compute_utilizations(analysis).notes
    yield from _device_notes(analysis)


def _device_notes(analysis: Analysis) -> Iterator[str]:
    """Yields a sentence where ranks ran on different kinds of device."""
    first, *others = (data.header for data in analysis.ranks)
    differing = [header.rank for header in others if header.device != first.device]
    if differing:
        yield f"{rank_names(differing)} ran on a different kind of device than rank {first.rank} ({first.device})"
