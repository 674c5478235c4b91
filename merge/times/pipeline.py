"""The stages of a pipeline: micro-batches, and the bubble, the time in which a stage waits for its neighbours.

    bubble = 1 - (forward in modules + backward) / (iteration - data wait - optimizer - evaluation)
             of each timed step, median over a rank's steps
    ideal  = (pp - 1) / (v * m + pp - 1)                     m micro-batches, v virtual stages a rank

Forward in modules is the sum of their self times.  What a rank waits for others in modules and within backward is left
out of both, where it is known: a send or receive makes it wait in ``Work.wait`` only, however early it was posted.  The
time between modules and backward is taken for waiting; so is a loss that is computed outside of modules.  The ideal
bubble is that of GPipe and 1F1B (v = 1) and of interleaved 1F1B, where all stages take the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.collectives.own_times import in_backward, in_forward, waited_by_step
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.merge.report import StageRow
from distprof.merge.stats import median_of_steps
from distprof.plain import dataclass

_NOT_SCHEDULED = ("data", "optimizer", "evaluation")


def stage_rows(analysis: Analysis) -> tuple[StageRow, ...]:
    """Returns one row for each stage that has a rank with timed steps; none without pipeline parallelism."""
    pp = analysis.layout.info.sizes["pp"]
    if pp == 1:
        return ()
    stages: dict[int, list[_Member]] = {}
    for data in analysis.ranks:
        if data.rank in analysis.timed_windows:
            stage = stages.setdefault(analysis.pipelines[data.rank].stage, [])
            waited = waited_by_step(analysis, data.rank, in_forward), waited_by_step(analysis, data.rank, in_backward)
            stage.append(_Member(data, analysis.timed_windows[data.rank], *waited))
    return tuple(_row(stage, stages[stage], pp) for stage in sorted(stages))


@dataclass(frozen=True, eq=False)
class _Member:
    """A rank of a stage, and what it waited in forward and in backward, by step, in ns."""

    data: RankData
    window: Window
    waited_forward: FloatArray
    waited_backward: FloatArray

    @property
    def forward(self) -> FloatArray:
        """Returns by step the time in modules without waits."""
        return np.maximum(self.window.in_modules_ns - self.waited_forward, 0)

    @property
    def backward(self) -> FloatArray:
        return np.maximum(self.window.phase_ns("backward") - self.waited_backward, 0)

    @property
    def schedule(self) -> FloatArray:
        """Returns by step the iteration without the phases that are not part of the schedule."""
        window = self.window
        return window.durations_ns - sum(map(window.phase_ns, _NOT_SCHEDULED), start=np.zeros(window.steps))

    @property
    def bubble(self) -> float | None:
        schedule, busy = self.schedule, self.forward + self.backward
        took = schedule > 0
        return median_of_steps(1 - busy[took] / schedule[took]) if took.any() else None


def _row(stage: int, members: Sequence[_Member], pp: int) -> StageRow:
    virtual = max((len(one.data.topology.stages) for one in members if one.data.topology), default=0) or 1
    micro_batches = [one.window.micro_batches for one in members if one.window.micro_batches]
    bubbles = [bubble for one in members if (bubble := one.bubble) is not None]
    steps = median(micro_batches) if micro_batches else None
    return StageRow(
        stage=stage,
        virtual_stages=virtual,
        ranks=tuple(one.data.rank for one in members),
        micro_batches=steps,
        forward_ns=median(median_of_steps(one.forward) for one in members),
        backward_ns=median(median_of_steps(one.backward) for one in members),
        waiting_ns=median(median_of_steps(one.schedule - one.forward - one.backward) for one in members),
        bubble=median(bubbles) if bubbles else None,
        ideal_bubble=None if steps is None else (pp - 1) / (virtual * steps + pp - 1),
    )
