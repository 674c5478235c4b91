"""The warm-up iterations of all ranks, one row for each iteration."""

from __future__ import annotations

from statistics import fmean

from distprof.merge.analysis import Analysis
from distprof.merge.report import WarmupIteration
from distprof.records import PHASES, WarmupStep


def warmup_iterations(analysis: Analysis) -> tuple[WarmupIteration, ...]:
    """Returns the warm-up iterations that any rank saw, ascending."""
    by_number: dict[int, list[WarmupStep]] = {}
    for data in analysis.ranks:
        for step in data.warmup:
            if step.mode == analysis.mode:
                by_number.setdefault(step.iteration, []).append(step)
    return tuple(_mean(number, by_number[number]) for number in sorted(by_number))


def _mean(number: int, steps: list[WarmupStep]) -> WarmupIteration:
    durations = [step.duration_ns for step in steps]
    seen = [phase for phase in PHASES if any(phase in step.phases_ns for step in steps)]
    return WarmupIteration(
        iteration=number,
        ranks=len(steps),
        duration_ns=fmean(durations),
        longest_ns=float(max(durations)),
        phases_ns={phase: fmean(step.phases_ns.get(phase, 0) for step in steps) for phase in seen},
    )
