"""The report as plain data: the analysis fills it in; text, JSON and plots show it.

Each section has a module; other packages import from here.

``summary.json`` is :class:`Report`, field by field, under :data:`REPORT_SCHEMA`.  Names of fields end with units.
A value that was not measured is None, never 0, and ``unavailable`` has the reason by the name of the field.

*Latencies* are medians over a rank's timed steps first; a :class:`Spread` is over ranks.  *Inclusive* numbers of a
module are sums of exclusive ones over its subtree.  A *cohort* is the set of ranks of one role: all coordinates equal
but ``dp`` and ``ep``, and ``tp`` where its ranks hold equal pieces; ranks are compared within their cohort only.
"""

from __future__ import annotations

from dataclasses import field

from distprof.merge.report.clocks import Clocks, HostClockRow
from distprof.merge.report.collectives import CollectiveRow, Collectives, RankWait, Unentered
from distprof.merge.report.experts import (
    ONLY_DEVICE,
    ONLY_TOKENS,
    TOKENS_AND_DEVICE,
    CountedRouter,
    EmptySlots,
    ExpertLayerStats,
    ExpertSummary,
    ExpertTraffic,
    LayerTimes,
    LoadMetrics,
    LoadOverSteps,
    LoadsByStep,
    MicroBatches,
    OverLayers,
    Placement,
    TokensOrDevice,
    WorstMicroBatch,
)
from distprof.merge.report.gains import GainGrid
from distprof.merge.report.hangs import HangRow
from distprof.merge.report.long_steps import Burst, LongStep
from distprof.merge.report.profile import CompiledRegion, ModuleStats, ModuleTimes, OpStats, WorkRow
from distprof.merge.report.ranks import HOLDINGS, HostRow, MemoryDifference, RankRow, StageRow
from distprof.merge.report.run import ReducedWindow, RunInfo, SlowInWindow, TopologyInfo, WindowInfo
from distprof.merge.report.skew import Skew, SkewMap, SkewRow
from distprof.merge.report.summary import (
    LONG_STEP,
    EvaluatedModel,
    Evaluations,
    Iterations,
    ModelTotals,
    ModelWork,
    Spread,
    Summary,
)
from distprof.merge.report.time_use import PhaseTime, SelfTime, TimeUse
from distprof.merge.report.timeline import RankTimeline, Span, StepTimeline
from distprof.merge.report.utilization import PeakUsed, Utilization, UtilizationSpread
from distprof.merge.report.verdict import (
    BALANCED,
    BOTH_WAYS,
    BUSY_PROCESSORS,
    DATA_LOADING,
    EXPERT_OVERLOAD,
    LONG_STAGE,
    MORE_WORK,
    NOBODY_STANDS_OUT,
    NOT_ENOUGH,
    NOT_SEEN,
    ONE_OF,
    OPTIMIZER,
    OVERLOADED,
    PAUSES,
    SLOW,
    SLOW_DEVICE,
    SLOW_HOST,
    SLOW_LINK,
    THROUGHOUT,
    Cause,
    ExpertVerdict,
    RankVerdict,
    SlowGroup,
    Straggler,
    Verdict,
    WindowFinding,
)
from distprof.merge.report.warmup import WarmupIteration
from distprof.plain import dataclass

__all__ = [
    "BALANCED",
    "BOTH_WAYS",
    "BUSY_PROCESSORS",
    "DATA_LOADING",
    "EXPERT_OVERLOAD",
    "HOLDINGS",
    "LONG_STAGE",
    "LONG_STEP",
    "MORE_WORK",
    "NOBODY_STANDS_OUT",
    "NOT_ENOUGH",
    "NOT_IN_JSON",
    "NOT_SEEN",
    "ONE_OF",
    "ONLY_DEVICE",
    "ONLY_TOKENS",
    "OPTIMIZER",
    "OVERLOADED",
    "PAUSES",
    "REPORT_SCHEMA",
    "SLOW",
    "SLOW_DEVICE",
    "SLOW_HOST",
    "SLOW_LINK",
    "THROUGHOUT",
    "TOKENS_AND_DEVICE",
    "Burst",
    "Cause",
    "Clocks",
    "CollectiveRow",
    "Collectives",
    "CompiledRegion",
    "CountedRouter",
    "EmptySlots",
    "EvaluatedModel",
    "Evaluations",
    "ExpertLayerStats",
    "ExpertSummary",
    "ExpertTraffic",
    "ExpertVerdict",
    "GainGrid",
    "HangRow",
    "HostClockRow",
    "HostRow",
    "Iterations",
    "LayerTimes",
    "LoadMetrics",
    "LoadOverSteps",
    "LoadsByStep",
    "LongStep",
    "MemoryDifference",
    "MicroBatches",
    "ModelTotals",
    "ModelWork",
    "ModuleStats",
    "ModuleTimes",
    "OpStats",
    "OverLayers",
    "PeakUsed",
    "PhaseTime",
    "Placement",
    "RankRow",
    "RankTimeline",
    "RankVerdict",
    "RankWait",
    "ReducedWindow",
    "Report",
    "RunInfo",
    "SelfTime",
    "Skew",
    "SkewMap",
    "SkewRow",
    "SlowGroup",
    "SlowInWindow",
    "Span",
    "Spread",
    "StageRow",
    "StepTimeline",
    "Straggler",
    "Summary",
    "TimeUse",
    "TokensOrDevice",
    "TopologyInfo",
    "Unentered",
    "Utilization",
    "UtilizationSpread",
    "Verdict",
    "WarmupIteration",
    "WindowFinding",
    "WindowInfo",
    "WorkRow",
    "WorstMicroBatch",
]

REPORT_SCHEMA = "distprof.report/2"
#: Metadata of a field that is too large for ``summary.json``; a table has it.
NOT_IN_JSON = "not in summary.json"


@dataclass(frozen=True)
class Report:
    """Everything that is known of one window of a run: the root of ``summary.json``."""

    run: RunInfo  # which run and ranks were merged
    topology: TopologyInfo  # the axes of parallelism
    summary: Summary  # the figures of the whole job
    model: ModelTotals  # the size and the work of the whole model
    utilization: Utilization  # MFU and HFU, and the peaks behind them
    modules: tuple[ModuleStats, ...]  # the module tree, depth first
    ranks: tuple[RankRow, ...]  # one for each recorded rank, ascending
    memory: tuple[MemoryDifference, ...]  # the largest first
    pipeline: tuple[StageRow, ...]  # none without pipeline parallelism
    skew: Skew  # where ranks disagree
    experts: tuple[ExpertLayerStats, ...]  # one for each MoE layer, in the order of the model
    verdict: Verdict  # what the report concludes
    clocks: Clocks  # how exactly times of several hosts compare
    collectives: Collectives  # calls, sizes and waits of the timed steps
    work: tuple[WorkRow, ...] = ()  # all of an iteration's flops; none when no rank counted
    generated: tuple[CompiledRegion, ...] = ()  # in the order of the model
    hosts: tuple[HostRow, ...] = ()  # in the order of their first ranks
    long_steps: tuple[LongStep, ...] = ()  # ascending
    hangs: tuple[HangRow, ...] = ()  # in the order in which they were found
    gains: GainGrid = field(default_factory=GainGrid)  # what an iteration would gain at each place of the job
    ops: tuple[OpStats, ...] = ()  # most flops first, then most time; where a process profiled itself
    time: TimeUse = field(default_factory=TimeUse)  # where the time of an iteration goes
    next_steps: tuple[str, ...] = ()  # what to look at, in words, the most important first
    warmup: tuple[WarmupIteration, ...] = ()  # before the first window, ascending; no other figure includes them
    expert_summary: ExpertSummary | None = None  # None where the model has no MoE layers
    expert_traffic: ExpertTraffic | None = None  # None where experts are not distributed, or routing is not known
    schema: str = REPORT_SCHEMA  # name and version of this format
    timeline: StepTimeline = field(default_factory=StepTimeline, compare=False, metadata={NOT_IN_JSON: True})
    module_times: ModuleTimes = field(default_factory=ModuleTimes, compare=False, metadata={NOT_IN_JSON: True})
