"""The recorded steps of one rank and one mode, reduced as soon as they are read: medians over steps, by row.

A run of 4,096 ranks holds about a gigabyte of step records; what the report needs of them is a tenth of that.  Step by
step only the self times of modules that matter are kept (:mod:`distprof.merge.load.self_times`).
Inclusive times are summed step by step and only then reduced, so that the median is one of a module's real
(inclusive) times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from statistics import median

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray, ShortFloatArray, SmallIntArray, as_small, padded_table
from distprof.merge.load.collectives import RankCollectives
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.self_times import SelfTimes, kept_self_times
from distprof.merge.stats import median_over_steps
from distprof.plain import dataclass, replace
from distprof.records import (
    PHASES,
    TRAINING,
    Array,
    CollectiveWindow,
    Counts,
    ExpertLayer,
    ExpertLoad,
    ExpertRouting,
    LayerCalls,
    Ops,
    Step,
)


@dataclass(frozen=True, eq=False)
class MedianModuleTimes:
    """Medians over the timed steps, one value a row of the rank's tree; times in ns."""

    calls: ShortFloatArray
    times: ShortFloatArray  # (4, rows): self times in forward and backward, then inclusive ones in both
    by_step: SelfTimes  # of the modules that matter


@dataclass(frozen=True, eq=False)
class Window:
    """Steps in the order of their iterations; ``phases_ns`` has one value a step, NaN where the phase was not seen."""

    mode: str
    number: int
    counts: Counts | None
    iterations: tuple[int, ...]
    durations_ns: IntArray
    median_ns: float | None  # the median duration; None without a step
    phases_ns: dict[str, FloatArray]
    micro_batches: float | None
    batch_size: float | None
    batch_found: str  # how, or why not
    samples: float | None  # of one step, the median
    peak_memory_bytes: int | None
    memory_source: str
    times: MedianModuleTimes | None  # None without a timed step
    samples_by_step: tuple[int, ...]  # 0 where the batch size was not found
    tokens_by_step: tuple[int, ...]  # 0 where the model is given no ids
    in_modules_ns: IntArray  # by step: forward inside modules, all self times together
    load_iterations: tuple[int, ...] = ()
    loads: IntArray | SmallIntArray | None = None  # tokens, (iterations, local experts of all layers)
    layers_ns: IntArray | None = None  # forward and backward inside each MoE layer, (layers, steps); with collectives
    unseen: tuple[tuple[int, ...], ...] = ()  # by load: the layers of which it says nothing
    calls: tuple[tuple[LayerCalls, ...], ...] = ()  # by load; empty where no layer was called twice in a step
    routings: tuple[ExpertRouting, ...] = ()
    counted_routing: ExpertRouting | None = None  # of the counted iteration
    ops: Ops | None = None
    collectives: RankCollectives | None = None  # None where they or the timelines were not recorded
    collective_window: CollectiveWindow | None = None  # how they were seen
    saw_no_forward: bool = False  # in training: what was counted and timed is not the whole, and the counts are None
    processor_waits_ns: FloatArray = field(default_factory=lambda: np.empty(0))  # by step, NaN where it was not seen
    recorded_counts: tuple[int, ...] = ()  # the iterations that were counted, also where the counts are None

    @property
    def steps(self) -> int:
        return len(self.iterations)

    @property
    def span(self) -> tuple[int, int]:
        """The numbers of the first and of the last iteration that was counted or timed."""
        numbers = (*self.iterations, *self.recorded_counts)
        return min(numbers), max(numbers)

    def phase_ns(self, phase: str) -> FloatArray:
        """Returns the time of a phase by step, 0 where the phase was not seen."""
        return np.nan_to_num(self.phases_ns[phase]) if phase in self.phases_ns else np.zeros(self.steps)


def roots_at_work(tree: RankTree, counts: Iterable[Counts], steps: Iterable[Step]) -> frozenset[int]:
    """Returns the roots that were called with gradient, or were in a backward, in iterations of training."""
    rows: set[int] = set()
    for counted in counts:
        if counted.mode == TRAINING:
            for work in (counted.calls, counted.backward_macs, counted.backward_flops):
                rows.update(_above_zero(work))
    for step in steps:
        if step.mode == TRAINING:
            rows.update(_above_zero(step.calls), _above_zero(step.backward_ns))
    return frozenset(tree.rows[row].root for row in rows if row < len(tree))


@dataclass(frozen=True, eq=False)
class WindowRecords:
    """The records of one window of one mode."""

    mode: str
    number: int
    counts: Sequence[Counts]
    steps: Sequence[Step]
    loads: Sequence[ExpertLoad]  # also of other modes
    routings: Sequence[ExpertRouting]  # also of other modes; they belong to the rank's layers
    ops: Ops | None


def build_window(records: WindowRecords, tree: RankTree, layers: Sequence[ExpertLayer]) -> Window:
    """Returns one window of one mode.  Loads that do not fit the ``layers`` are left out."""
    counts = records.counts
    steps = sorted({step.iteration: step for step in records.steps}.values(), key=lambda step: step.iteration)
    tables = _tables(tree, steps) if steps else None
    middle_ns = float(median(step.duration_ns for step in steps)) if steps else None
    every: list[Counts | Step] = [*counts, *steps]
    unseen = records.mode == TRAINING and any(map(_ran_no_forward, every))
    window = Window(
        mode=records.mode,
        number=records.number,
        counts=counts[-1] if counts and not unseen else None,
        iterations=tuple(step.iteration for step in steps),
        durations_ns=np.array([step.duration_ns for step in steps], np.int64),
        median_ns=middle_ns,
        phases_ns=_phases(steps),
        micro_batches=_median([step.micro_batches for step in steps] or [c.micro_batches for c in counts]),
        batch_size=_median([step.batch_size for step in steps] or [_batch_size(c) for c in counts]),
        batch_found=_batch_found(steps or counts),
        samples=_median([step.samples for step in steps] or [c.samples for c in counts]),
        peak_memory_bytes=max((step.peak_memory_bytes for step in steps), default=0) or None,
        memory_source=steps[-1].memory_source if steps else "",
        times=_module_times(tables, tree, middle_ns) if tables and middle_ns is not None else None,
        samples_by_step=tuple(step.samples for step in steps),
        tokens_by_step=tuple(step.tokens for step in steps),
        in_modules_ns=np.array([int(step.forward_ns.sum()) for step in steps], np.int64),
        layers_ns=_layer_times(tables, layers) if tables and layers else None,
        ops=records.ops,
        saw_no_forward=unseen,
        processor_waits_ns=np.array(
            [step.processor_wait_ns if step.processor_wait_seen else np.nan for step in steps], np.float64
        ),
        recorded_counts=tuple(record.iteration for record in counts),
    )
    return _with_experts(window, records, layers)


def _with_experts(window: Window, records: WindowRecords, layers: Sequence[ExpertLayer]) -> Window:
    """Returns the window with the loads of experts and the choices of routers in its iterations.

    Iterations are numbered from 0 in each mode, and training comes last: of two loads of one number, the later is used.
    """
    timed, counts = set(window.iterations), records.counts
    experts = sum(len(layer.local_experts) for layer in layers if layer.counted)
    kept = {load.iteration: load for load in records.loads if load.iteration in timed and len(load.tokens) == experts}
    routed = {routing.iteration: routing for routing in records.routings if routing.iteration in timed}
    in_counts = [one for one in records.routings if counts and one.iteration == counts[-1].iteration]
    loads = [kept[iteration] for iteration in sorted(kept)]
    return replace(
        window,
        load_iterations=tuple(load.iteration for load in loads),
        loads=as_small(np.array([load.tokens for load in loads], np.int64)) if loads else None,
        unseen=tuple(load.unseen for load in loads),
        calls=tuple(load.calls for load in loads) if any(load.calls for load in loads) else (),
        routings=tuple(routed[iteration] for iteration in sorted(routed)),
        counted_routing=in_counts[-1] if in_counts else None,
    )


def _phases(steps: Sequence[Step]) -> dict[str, FloatArray]:
    seen = {phase for step in steps for phase in step.phases_ns}
    names = [phase for phase in PHASES if phase in seen]
    table = np.array([[step.phases_ns.get(phase, np.nan) for step in steps] for phase in names], np.float64)
    return dict(zip(names, table, strict=True))


def _batch_size(counts: Counts) -> int:
    """Returns the size of one micro-batch of the counted step, for ranks without a timed one."""
    if counts.batch_found:
        return counts.batch_size
    return counts.samples // counts.micro_batches if counts.micro_batches else 0


def _batch_found(iterations: Sequence[Counts] | Sequence[Step]) -> str:
    """Returns how the batch size was found, or why it was not, in most iterations."""
    said = [one.batch_found for one in iterations if one.samples] or [one.batch_found for one in iterations]
    return max(sorted(set(said)), key=said.count, default="")


def _ran_no_forward(iteration: Counts | Step) -> bool:
    return iteration.micro_batches == 0 and not iteration.calls.any()


def _median(values: Sequence[int]) -> float | None:
    """Returns the median of the values above zero: a recorder writes zero for what it did not see."""
    seen = [value for value in values if value > 0]
    return float(median(seen)) if seen else None


@dataclass(frozen=True, eq=False)
class _Tables:
    """The times of modules step by step, (forward and backward, steps, rows of the tree); calls as (steps, rows)."""

    calls: IntArray
    own: IntArray
    inclusive: IntArray


def _tables(tree: RankTree, steps: Sequence[Step]) -> _Tables:
    times = [step.forward_ns for step in steps] + [step.backward_ns for step in steps]
    own = padded_table(times, len(tree)).reshape(2, len(steps), len(tree))
    return _Tables(padded_table([step.calls for step in steps], len(tree)), own, tree.inclusive(own))


def _module_times(tables: _Tables, tree: RankTree, iteration_ns: float) -> MedianModuleTimes:
    own = median_over_steps(tables.own.swapaxes(0, 1))
    inclusive = own.copy()  # that of modules without others inside
    inclusive[:, tree.inner] = median_over_steps(tables.inclusive[..., tree.inner].swapaxes(0, 1))
    return MedianModuleTimes(
        calls=median_over_steps(tables.calls).astype(np.float32),
        times=np.concatenate([own, inclusive], dtype=np.float32, casting="same_kind"),
        by_step=kept_self_times(tables.own, iteration_ns),
    )


def _layer_times(tables: _Tables, layers: Sequence[ExpertLayer]) -> IntArray:
    """Returns the times of both directions in each layer and all modules inside, (layers, steps)."""
    rows = [layer.row for layer in layers]
    both: IntArray = tables.inclusive[..., rows].sum(axis=0)
    return np.ascontiguousarray(both.T)


def _above_zero(values: Array) -> list[int]:
    rows: list[int] = values.nonzero()[0].tolist()
    return rows
