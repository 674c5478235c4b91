"""The probe of timed steps: attaches the module timer and the phase patches, and makes the records
of each iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import get_ident

from distprof.clock import Clock
from distprof.hooks.module_calls import ModuleCallPatch
from distprof.hooks.patches import OnError, dataloader_patch
from distprof.model.moe_layers import MoeLayer
from distprof.probes.collectives.called_ops import KnownOps
from distprof.probes.collectives.recording import CollectiveRecording
from distprof.probes.expert_records import Pending
from distprof.probes.experts import ExpertTally
from distprof.probes.memory.peak import peak_memory
from distprof.probes.module_stack import ThreadCallHandler
from distprof.probes.optimizer_steps import OptimizerSteps
from distprof.probes.protocol import ModuleCallListener
from distprof.probes.timing.compiled_routers import CompiledRouters
from distprof.probes.timing.fast_path import timestamps_on, with_fast_path
from distprof.probes.timing.long_turns import timeline_record
from distprof.probes.timing.module_timer import ModuleTimer
from distprof.probes.timing.module_times import Fields
from distprof.probes.timing.node_hooks import NOBODY
from distprof.probes.timing.pauses import PauseRecorder
from distprof.probes.timing.phases import OPTIMIZER, phases_ns
from distprof.probes.timing.processor_wait import ProcessorWait
from distprof.probes.timing.timed_functions import TimedFunctions
from distprof.probes.timing.timeline import Intervals, Unread
from distprof.records import Pauses, Record, Step, Timeline


@dataclass
class _Finished:
    """An ended iteration whose timestamps may not be readable yet."""

    step: Callable[..., Step]  # Step with all fields but the times
    phases: Intervals
    unseen: set[str]  # phases without time because no patch sees them
    modules: Callable[[], Fields]
    timeline: Callable[[], Timeline]  # readable after ``modules``
    pauses: Pauses | None
    tokens: Pending | None


class TimedProbe:
    """Stays attached for all timed iterations of the window; :meth:`begin` and :meth:`end` mark each of them."""

    def __init__(
        self,
        patch: ModuleCallPatch,
        listener: ModuleCallListener,
        on_error: OnError,
        clock: Clock,
        device: str,
        layers: Sequence[MoeLayer],
        window: int = 0,
        collectives: CollectiveRecording | None = None,
    ) -> None:
        """``window`` is the number of the window, for its records."""
        self._clock = clock
        self._collectives = collectives
        self._on_error = on_error
        self._module_patch = patch
        self._timestamps = timestamps_on(device, clock.mono_ns)
        self.timer = ModuleTimer(listener, self._timestamps, ExpertTally(layers, window), on_error)
        self._peak_memory, self._memory_source = peak_memory(device)
        self._data_patch = dataloader_patch(on_error)
        self._functions = TimedFunctions(self.timer, on_error, CompiledRouters(layers, self.timer))
        self._pauses = PauseRecorder(clock.mono_ns)
        self.optimizer_steps = OptimizerSteps(self._optimizer_began, self._optimizer_ended, on_error)
        self._window = window
        self._began_wall_ns = 0
        self._processor_wait = ProcessorWait()
        self._unread: Unread[_Finished] = Unread(self._timestamps)
        self._backward_thread: int | None = None  # another thread on which a backward runs

    @property
    def thread(self) -> int:
        return self.timer.running.thread

    def activity(self) -> tuple[str, int | None]:
        """Returns the running phase, empty outside of all, and the row of the running module, None outside of all.

        Another thread may ask: what it gets may be a moment old.
        """
        phase, owners = self.timer.phases.running, self.timer.timeline.owners
        owner = owners[-1] if owners else NOBODY
        return phase, None if owner == NOBODY else owner if owner >= 0 else ~owner

    def known_ops(self) -> KnownOps:
        """Returns what is known of the ops of the last collectives; another thread may ask."""
        return KnownOps() if self._collectives is None else self._collectives.known_ops()

    def record_experts(self, layers: Sequence[MoeLayer], number: int, counts: object) -> None:
        """Adds tokens that the script has counted in layer ``number`` of ``layers``; not again when recomputing."""
        running = self.timer.running
        if get_ident() == self.thread and not running.in_evaluation and not self.timer.interrupted:
            self.timer.experts.record(layers, number, counts)

    def attach(self) -> None:
        timer = self.timer
        self._module_patch.open(with_fast_path(timer, self._on_error))
        self._data_patch.open(ThreadCallHandler(self.thread, timer.data_began, timer.data_ended))
        self.optimizer_steps.open()
        self._functions.open()
        self._pauses.open()
        self._processor_wait.open()
        if self._collectives is not None:
            self._collectives.open()
        self.begin()

    def detach(self) -> None:
        if self._collectives is not None:
            self._collectives.close()
        self._module_patch.close()
        self._data_patch.close()
        self.optimizer_steps.close()
        self._functions.close()
        self._pauses.close()
        self._processor_wait.close()
        self.timer.remove_hooks()

    def abandon(self) -> None:
        self.timer.abandon()
        self.detach()

    def begin(self) -> None:
        if self._collectives is not None:
            self._collectives.step_begins()
        self._began_wall_ns = self._clock.wall_ns()
        self._processor_wait.begin()
        self.timer.begin()
        self.optimizer_steps.forget()
        self._functions.begin()

    def end(self, iteration: int, mode: str) -> None:
        timer, work = self.timer, self.timer.running.tally.work()
        tokens = timer.experts.finish(iteration)  # before the timestamp after which they can be read
        modules = timer.finish()
        phases = timer.phases.finish()
        moments_ns = timer.phases.moments_ns(phases)
        turns = timer.sums.long_turns if self._timestamps.immediate else None
        waited = self._processor_wait.waited_ns()
        step = partial(
            Step,
            iteration=iteration,
            mode=mode,
            window=self._window,
            start_wall_ns=self._began_wall_ns,
            micro_batches=work.micro_batches,
            batch_size=work.batch_size,
            samples=work.samples,
            tokens=work.tokens,
            batch_found=work.found,
            peak_memory_bytes=self._peak_memory(),
            memory_source=self._memory_source,
            processor_wait_ns=waited or 0,
            processor_wait_seen=waited is not None,
        )
        timeline = partial(timeline_record, iteration, mode, phases.owners, moments_ns, turns, window=self._window)
        pauses = self._pauses.record(iteration, mode, moments_ns[0], self._window)
        finished = _Finished(step, phases, timer.phases.unseen(mode), modules, timeline, pauses, tokens)
        self._unread.add(phases.end, finished)  # recorded after the modules' timestamps
        if self._collectives is not None:
            self._collectives.step_ended(iteration, mode, moments_ns[0], moments_ns[-1])

    def read(self, *, wait: bool = False) -> list[Record]:
        records: list[Record] = []
        for finished in self._unread.take(wait=wait):
            records += [_record_of(finished), finished.timeline()]
            records += () if finished.pauses is None else [finished.pauses]
            records += finished.tokens.records() if finished.tokens is not None else ()
        if self._collectives is not None:
            records += self._collectives.records()
        return records

    def backward_began(self, create_graph: bool) -> None:
        if get_ident() == self.timer.running.thread:
            self.timer.backward_began()
        elif not self.timer.stack and not self.timer.in_backward:  # the thread that trains waits for this backward
            self._backward_thread = get_ident()
            self.timer.backward_began()

    def backward_ended(self) -> None:
        if get_ident() in (self.timer.running.thread, self._backward_thread):
            self._backward_thread = None
            self.timer.backward_ended()

    def _optimizer_began(self) -> None:
        self.timer.running.tally.updating += 1
        self.timer.phases.enter(OPTIMIZER)

    def _optimizer_ended(self) -> None:
        self.timer.running.tally.updating -= 1
        self.timer.phases.leave()


def _record_of(finished: _Finished) -> Step:
    """Returns the step with its times, which must be readable."""
    phases = phases_ns(finished.phases, finished.unseen)
    return finished.step(duration_ns=sum(phases.values()), phases_ns=phases, **finished.modules())
