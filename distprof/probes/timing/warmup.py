"""The probe of warm-up iterations: the times of their phases, and nothing inside models.

A timestamp is taken where a phase begins or ends, about ten in an iteration, so that a script that ends before its
window still has something to report.  The first iteration begins with the first call of a model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, Protocol

from torch import nn

from distprof.clock import Clock
from distprof.flops.attribution import with_gradient
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.hooks.module_calls import ModuleCallPatch
from distprof.hooks.patches import OnError, dataloader_patch
from distprof.probes.model_watch import ModelListener, ModelWatch
from distprof.probes.module_stack import Loading
from distprof.probes.optimizer_steps import OptimizerSteps
from distprof.probes.timing.fast_path import timestamps_on
from distprof.probes.timing.phases import BACKWARD, DATA, EVALUATION, FORWARD, OPTIMIZER, PhaseClock, phases_ns
from distprof.probes.timing.timeline import Unread
from distprof.records import TRAINING, Record, WarmupStep


class WarmupListener(ModelListener, Protocol):
    """What the probe needs of its recorder."""

    @property
    def mode(self) -> str: ...


class WarmupProbe(ModelWatch):
    """Stays attached for the warm-up iterations; sees models run as a :class:`ModelWatch` does, and passes that on."""

    def __init__(
        self,
        patch: ModuleCallPatch,
        listener: WarmupListener,
        on_error: OnError,
        clock: Clock,
        device: str,
        loading: Loading,
        restarts: int,
    ) -> None:
        """``restarts`` is how often iterations have begun again, for the records."""
        super().__init__(patch, listener, loading)
        self.thread = get_ident()
        self.optimizer_steps = OptimizerSteps(self._optimizer_began, self._left, on_error)
        self._patch = patch
        self._mode = lambda: listener.mode
        self._clock = clock
        self._restarts = restarts
        self._timestamps = timestamps_on(device, clock.mono_ns)
        self._unread: Unread[Callable[[], WarmupStep]] = Unread(self._timestamps)
        self._data_patch = dataloader_patch(on_error)
        self._data_watch = _TimedLoading(loading, self.thread, self._data_began, self._left)
        self._in_call = self._is_model = False
        self._backwards: list[int] = []  # the threads of the running backward passes, the innermost last
        self.begin()

    def attach(self) -> None:
        self._patch.open(self)
        self._data_patch.open(self._data_watch)
        self.optimizer_steps.open()
        self.begin()

    def detach(self) -> None:
        self._patch.close()
        self._data_patch.close()
        self.optimizer_steps.close()

    def abandon(self) -> None:
        self.detach()

    def begin(self) -> None:
        self._began_wall_ns = self._clock.wall_ns()
        self._phases = PhaseClock(self._timestamps)
        self.optimizer_steps.forget()

    def end(self, iteration: int, mode: str) -> None:
        intervals, unseen = self._phases.finish(), self._phases.unseen(mode)
        step = partial(WarmupStep, iteration, mode, self._began_wall_ns, restarts=self._restarts)

        def record() -> WarmupStep:
            times = phases_ns(intervals, unseen)
            return step(duration_ns=sum(times.values()), phases_ns=times)

        self._unread.add(intervals.end, record)

    def read(self, *, wait: bool = False) -> list[Record]:
        return [record() for record in self._unread.take(wait=wait)]

    @hidden_from_dynamo
    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        # A module that runs in a backward is recomputed, which is backward's time.
        if self._in_call or self._backwards or get_ident() != self.thread or self._loading.here:
            return None
        self._is_model = super().enter(module, args, kwargs) is not None  # an iteration may begin here
        self._in_call = True
        self._phases.enter(FORWARD if self._mode() != TRAINING or with_gradient() else EVALUATION)
        return 0

    @hidden_from_dynamo
    def leave(self, token: int, output: Any) -> None:
        self._in_call = False
        self._phases.leave()
        if self._is_model:  # last, because an iteration may end here
            super().leave(token, output)

    def backward_began(self, create_graph: bool) -> None:
        here = get_ident()
        if here == self.thread or not (self._in_call or self._backwards):  # else the thread that trains waits for it
            self._backwards.append(here)
            self._phases.enter(BACKWARD)

    def backward_ended(self) -> None:
        if self._backwards and self._backwards[-1] == get_ident():
            self._backwards.pop()
            self._phases.leave()

    def _optimizer_began(self) -> None:
        self._phases.enter(OPTIMIZER)

    def _data_began(self) -> None:
        self._phases.enter(DATA)

    def _left(self) -> None:
        self._phases.leave()


class _TimedLoading:
    """Tells :class:`Loading` of all waits for a batch, and the probe of those of its thread."""

    def __init__(self, loading: Loading, thread: int, began: Callable[[], None], ended: Callable[[], None]) -> None:
        self._loading = loading
        self._thread = thread
        self._began = began
        self._ended = ended

    def begin(self, args: tuple[Any, ...]) -> None:
        self._loading.begin(args)
        if get_ident() == self._thread:
            self._began()

    def end(self) -> None:
        if get_ident() == self._thread:
            self._ended()
        self._loading.end()
