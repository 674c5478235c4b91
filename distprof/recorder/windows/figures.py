"""What is shown of a window while the job runs: figures of its last timed iteration, and its work, from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from distprof.heartbeat.layout import PHASES
from distprof.heartbeat.slot import NOT_MEASURED, DeviceMacs, StepFigures, WindowWork
from distprof.records import Array, Counts, DeviceWork, ExpertLayers, ExpertLoad, ExpertRouting, Plan, Record, Step

_NO_PHASE = (NOT_MEASURED,) * len(PHASES)


class WindowFigures:
    """Follows the records of one rank in the order in which they are written."""

    def __init__(self) -> None:
        self._plan = Plan(0, 0, 0)
        self._layers = ExpertLayers(())
        self._counted = WindowWork()  # without the mean time
        self._total_ns = self._steps = 0  # of the timed iterations of the window that are used
        self.last = StepFigures()

    def read(self, records: Sequence[Record]) -> None:
        """Takes records, of any number of iterations: only the last one is shown."""
        newest: Step | None = None
        experts: list[ExpertLoad | ExpertRouting] = []
        for record in records:
            if isinstance(record, Step):
                newest = record
                if record.iteration >= self._plan.first_used:
                    self._total_ns += record.duration_ns
                    self._steps += 1
            elif isinstance(record, Plan):
                self._plan, self._counted, self._total_ns, self._steps = record, WindowWork(), 0, 0
            elif isinstance(record, Counts):
                self._counted = _work_of_main_kind(record.device_work, self._plan.window)
            elif isinstance(record, ExpertLayers):
                self._layers = record
            elif isinstance(record, (ExpertLoad, ExpertRouting)):
                experts.append(record)
        if newest is not None:
            self.last = _figures_of(newest)
        for record in experts:
            if record.iteration == self.last.iteration:
                self._read_experts(record)

    def _read_experts(self, record: ExpertLoad | ExpertRouting) -> None:
        if isinstance(record, ExpertRouting):
            overloads = [_overload(layer.routed) for layer in record.layers if len(layer.routed)]
            self.last = self.last._replace(expert_overload=max(overloads, default=NOT_MEASURED))
        elif not record.unseen:
            self.last = self.last._replace(expert_tokens=int(record.tokens.sum()))
            if self.last.expert_overload < 0:
                self.last = self.last._replace(expert_overload=self._overload_here(record))

    def _overload_here(self, record: ExpertLoad) -> float:
        """Returns the overload by the tokens of this rank's experts, where it has all experts of each layer."""
        found, first = [], 0
        for layer in (layer for layer in self._layers.layers if layer.counted):
            local = len(layer.local_experts)
            if local != layer.num_experts:
                return NOT_MEASURED
            found.append(_overload(record.tokens[first : first + local]))
            first += local
        return max(found, default=NOT_MEASURED)

    def work(self) -> WindowWork:
        """Returns the work of the window so far; without a counted or a timed iteration there is none."""
        if not self._counted.macs or not self._steps:
            return WindowWork()
        return self._counted._replace(mean_ns=self._total_ns // self._steps)


def _figures_of(step: Step) -> StepFigures:
    return StepFigures(
        step.iteration,
        step.duration_ns,
        tuple(map(step.phases_ns.get, PHASES, _NO_PHASE)),
        samples=step.samples if step.batch_size else NOT_MEASURED,
        tokens=step.tokens or NOT_MEASURED,
        peak_bytes=step.peak_memory_bytes,
    )


def _overload(tokens: Array) -> float:
    """Returns the load of the hottest expert over the mean of all; -1 without any token."""
    return float(tokens.max() / tokens.mean()) if len(tokens) and tokens.sum() else NOT_MEASURED


def _work_of_main_kind(work: Sequence[DeviceWork], window: int) -> WindowWork:
    """Returns the work on devices of the kind that ran most MACs, by engine."""
    if not work:
        return WindowWork()
    kind = _main_kind(work)
    own = [row for row in work if _kind(row) == kind]
    macs: Counter[tuple[str, int, str]] = Counter()
    for row in own:
        macs[row.name, row.threads, row.arithmetic] += row.model_macs
    rows = tuple(DeviceMacs(*engine, count) for engine, count in macs.items())
    return WindowWork(window, devices=len({row.device for row in own}), macs=rows)


def _main_kind(work: Sequence[DeviceWork]) -> str:
    """Returns the kind of device that ran most MACs."""
    macs: Counter[str] = Counter()
    for row in work:
        macs[_kind(row)] += row.executed_macs
    return max(macs, key=lambda kind: (macs[kind], kind))


def _kind(row: DeviceWork) -> str:
    return row.device.partition(":")[0]
