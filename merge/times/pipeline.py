"""The stages of a pipeline: micro-batches, and the bubble, the time in which a stage waits for its neighbours.

    bubble = 1 - (forward in modules + backward) / (iteration - data wait - optimizer - evaluation)
             of each timed step, median over a rank's steps
    ideal  = (pp - 1) / (v * m + pp - 1)                     m micro-batches, v virtual stages a rank

Forward in modules is the sum of their self times.  The time between modules and backward is taken for waiting; so is a
loss that is computed outside of modules.  The ideal bubble is that of GPipe and 1F1B (v = 1) and of interleaved 1F1B,
where all stages take the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.merge.report import StageRow
from distprof.merge.stats import median_of_steps

_NOT_SCHEDULED = ("data", "optimizer", "evaluation")


def stage_rows(analysis: Analysis) -> tuple[StageRow, ...]:
    """Returns one row for each stage that has a rank with timed steps; none without pipeline parallelism."""
    pp = analysis.layout.info.sizes["pp"]
    if pp == 1:
        return ()
    stages: dict[int, list[tuple[RankData, Window]]] = {}
    for data in analysis.ranks:
        if data.rank in analysis.timed_windows:
            stage = stages.setdefault(analysis.pipelines[data.rank].stage, [])
            stage.append((data, analysis.timed_windows[data.rank]))
    return tuple(_row(stage, stages[stage], pp) for stage in sorted(stages))


def _row(stage: int, members: Sequence[tuple[RankData, Window]], pp: int) -> StageRow:
    virtual = max((len(data.topology.stages) for data, _ in members if data.topology), default=0) or 1
    micro_batches = [window.micro_batches for _, window in members if window.micro_batches]
    bubbles = [bubble for _, window in members if (bubble := _bubble(window)) is not None]
    steps = median(micro_batches) if micro_batches else None
    return StageRow(
        stage=stage,
        virtual_stages=virtual,
        ranks=tuple(data.rank for data, _ in members),
        micro_batches=steps,
        forward_ns=median(median_of_steps(window.in_modules_ns) for _, window in members),
        backward_ns=median(median_of_steps(window.phase_ns("backward")) for _, window in members),
        waiting_ns=median(median_of_steps(_schedule(window) - _busy(window)) for _, window in members),
        bubble=median(bubbles) if bubbles else None,
        ideal_bubble=None if steps is None else (pp - 1) / (virtual * steps + pp - 1),
    )


def _bubble(window: Window) -> float | None:
    schedule = _schedule(window)
    took = schedule > 0
    return median_of_steps(1 - _busy(window)[took] / schedule[took]) if took.any() else None


def _busy(window: Window) -> FloatArray:
    """Returns by step the time in which the stage computes."""
    return window.in_modules_ns + window.phase_ns("backward")


def _schedule(window: Window) -> FloatArray:
    """Returns by step the iteration without the phases that are not part of the schedule."""
    return window.durations_ns - sum(map(window.phase_ns, _NOT_SCHEDULED), start=np.zeros(window.steps))
