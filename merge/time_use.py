"""Where the time of an iteration goes: phases, classes and modules.

phases of the ranks -> PhaseTime;   self times (modules, ranks) without waits -> SelfTime by module and by class
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.collectives.section import collectives_section
from distprof.merge.report import PhaseTime, RankWait, SelfTime, TimeUse
from distprof.merge.skew.skew import own_time_tables
from distprof.merge.stats import nan_mean, nan_median, to_number
from distprof.merge.times.phase_tables import phase_tables
from distprof.merge.times.summary import profile_summary
from distprof.plain import dataclass
from distprof.records import PHASES

#: What each phase is, and what to look at where it is long.
_MEANINGS = {
    "data": ("waits for the next batch of a DataLoader", "number of DataLoader workers, prefetching, storage"),
    "forward": ("inside modules", "the modules of most self time"),
    "outside": (
        "between modules, or between modules and backward: the script's loss, metrics, the next batch",
        ".item(), logging, and work that is in no module",
    ),
    "backward": ("inside loss.backward()", "the modules of most self time; recomputed activations"),
    "optimizer": ("inside optimizer.step()", "fused or foreach forms of the optimizer, offloaded state"),
    "evaluation": ("models that run without gradient", "how often the script evaluates, and how much"),
    "other": (
        "in no other phase: before the first batch, and from the last backward to the end of the step",
        "logging, checkpoints, .item(), clipping, and waits in the script",
    ),
}
#: One rank is named as the one that others wait for, if it is last in this share of the collectives.
_MOSTLY = 0.5
#: Waits of this share of a phase are worth a word.
_LARGE_WAIT = 0.1
#: Medians of phases add up to the median iteration within this share of it, unless they are of different steps.
_ROUNDING = 0.005


@computed_once
def time_use(analysis: Analysis) -> TimeUse:
    """Returns where the time goes; an empty section where no step was timed."""
    iterations = profile_summary(analysis).iterations
    if iterations is None:
        return TimeUse()
    own = own_time_tables(analysis)
    modules = len(analysis.union.modules)
    forward, backward = np.split(own.modules.times, 2)
    times = _Times(forward, backward, _waits(own.modules.waits, modules), own.modules.medians)
    phases = tuple(_phases(analysis, dict(zip(own.phases.subjects, own.phases.median_waits(), strict=True))))
    total = sum(one.median_ns for one in phases)
    return TimeUse(
        phases=phases,
        classes=_longest_first(_classes(analysis, times, iterations.median_ns)),
        modules=_longest_first(_modules(analysis, times, iterations.median_ns)),
        has_own_times=not why_no_own_times(analysis),
        phases_sum_ns=total,
        phases_add_up=abs(total - iterations.median_ns) <= _ROUNDING * iterations.median_ns,
    )


@dataclass(frozen=True, eq=False)
class _Times:
    """Own times as (modules, ranks) in ns, NaN where a rank has none."""

    forward: FloatArray
    backward: FloatArray
    wait: FloatArray | None  # None where waits are not known at all
    medians: FloatArray  # of forward, then of backward, by module

    @property
    def tables(self) -> tuple[FloatArray | None, ...]:
        return self.forward, self.backward, self.wait


def _waits(table: FloatArray | None, modules: int) -> FloatArray | None:
    """Returns the waits of forward and backward together; NaN where neither is known."""
    if table is None:
        return None
    both = np.stack([table[:modules], table[modules:]])
    return np.where(np.isnan(both).all(axis=0), np.nan, np.nansum(both, axis=0))


def _phases(analysis: Analysis, waits: dict[str, float]) -> Iterator[PhaseTime]:
    by_rank = phase_tables(analysis).medians
    over_ranks = {phase: to_number(float(nan_median(by_rank[phase]))) for phase in PHASES if phase in by_rank}
    medians = {phase: middle for phase, middle in over_ranks.items() if middle}
    whole, awaited = sum(medians.values()), _awaited(collectives_section(analysis).waits)
    for phase, time in medians.items():
        wait = to_number(waits.get(phase, np.nan))
        meaning, look_at = _MEANINGS[phase]
        if awaited and wait is not None and wait >= _LARGE_WAIT * time:
            look_at = f"{awaited}; {look_at}"
        yield PhaseTime(phase, time, wait, time / whole, meaning, look_at)


def _awaited(waits: tuple[RankWait, ...]) -> str:
    """Returns for whom ranks wait, in words; empty where no arrival was last."""
    total = sum(one.last for one in waits)
    if not total:
        return ""
    most = max(waits, key=lambda one: (one.last, -one.rank))
    if most.last < _MOSTLY * total:
        return "waits for several ranks (Collectives)"
    return f"waits for rank {most.rank}, the last in {most.last} of {total} collectives"


def _modules(analysis: Analysis, times: _Times, iteration_ns: float) -> Iterator[SelfTime]:
    parents = {module.parent for module in analysis.union.modules}
    wait = np.full(len(analysis.union.modules), np.nan) if times.wait is None else nan_median(times.wait)
    middle = [own.tolist() for own in (*np.split(times.medians, 2), wait)]
    for index, (module, *own) in enumerate(zip(analysis.union.modules, *middle, strict=True)):
        yield _self_time(module.label, module.row.class_name, 1, index in parents, own, iteration_ns)


def _classes(analysis: Analysis, times: _Times, iteration_ns: float) -> Iterator[SelfTime]:
    by_class: dict[str, list[int]] = {}
    for index, module in enumerate(analysis.union.modules):
        by_class.setdefault(module.row.class_name, []).append(index)
    timed = np.array([data.rank in analysis.timed_windows for data in analysis.ranks])
    for name, own in by_class.items():
        sums = [np.nan if table is None else _mean_sum(table[own][:, timed]) for table in times.tables]
        yield _self_time(name, name, len(own), False, sums, iteration_ns)


def _mean_sum(table: FloatArray) -> float:
    """Returns the mean over ranks of the sum over modules, where a rank without them has 0; NaN without a time."""
    if np.isnan(table).all():
        return float("nan")
    return float(nan_mean(np.nansum(table, axis=0)[None])[0])


def _self_time(
    subject: str, class_name: str, modules: int, contains: bool, own: list[float], iteration_ns: float
) -> SelfTime:
    forward, backward, wait = map(to_number, own)
    share = ((forward or 0.0) + (backward or 0.0)) / iteration_ns if iteration_ns else 0.0
    return SelfTime(subject, class_name, modules, contains, forward, backward, wait, share)


def _longest_first(rows: Iterator[SelfTime]) -> tuple[SelfTime, ...]:
    """Returns the rows that took time; equal ones stay in the order of the model."""
    took = [row for row in rows if row.share > 0 or row.wait_ns]
    return tuple(sorted(took, key=lambda row: -row.share))
