"""The variants of a training step: with distprof's recorder, and with other tools for the same purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter_ns
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.gpt import Training
from bench.recorders import SwitchedRecorder, checked
from distprof.recorder.windows.capture_plan import MOST_WARMUP

#: The context of one step.
Around = Callable[[], AbstractContextManager[None]]
_MANY = 1 << 30


@dataclass(frozen=True)
class Variant:
    """``ready`` prepares steps of a training.  ``share``: a variant for comparison only is measured once in so many.
    ``needs``: the package that has to be installed.
    """

    ready: Callable[[Training], AbstractContextManager[Around]]
    share: int = 1
    needs: str = "torch"

    @property
    def installed(self) -> bool:
        return find_spec(self.needs) is not None


class EmptyMode(TorchDispatchMode):
    """Calls each op and does nothing else: what remains is torch's own price of a dispatch mode in Python."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as distprof's: hiding each call from dynamo costs more

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **kwargs) if kwargs else func(*args)


@contextmanager
def _plain(training: Training) -> Iterator[Around]:
    yield nullcontext


@contextmanager
def _quiet(training: Training) -> Iterator[Around]:
    with checked({"step": 0, "counts": 0}, warmup=_MANY, timed=1) as recorder:
        for _ in range(MOST_WARMUP):  # their phases are timed
            training.step()
        yield SwitchedRecorder(recorder)


@contextmanager
def _timed(training: Training) -> Iterator[Around]:
    """Yields timed steps but the first, in which a recorder allocates its tables."""
    expected = {"memory": 1, "end": 1}
    with checked(expected, warmup=1, timed=_MANY, count=False) as recorder:
        training.step()
        training.step()
        turns = SwitchedRecorder(recorder)
        yield turns
        expected["step"] = 1 + turns.steps


@contextmanager
def _counted(training: Training) -> Iterator[Around]:
    @contextmanager
    def around() -> Iterator[None]:
        with checked({"counts": 1, "end": 1}, warmup=1, timed=0):
            training.step()
            yield

    yield around


def _each(switched_on: Callable[[nn.Module], AbstractContextManager[None]]) -> Any:
    """Makes a variant of a context manager that can be entered for any step."""

    @contextmanager
    def ready(training: Training) -> Iterator[Around]:
        yield lambda: switched_on(training.model)

    return ready


@contextmanager
def _hooks(model: nn.Module) -> Iterator[None]:
    """Attaches plain hooks that read the clock at each module's call and return, and as its backward begins."""
    stamps: list[int] = []

    def stamp(*_: Any) -> None:
        stamps.append(perf_counter_ns())

    def returned(module: nn.Module, args: Any, output: Any) -> None:
        stamp()
        if output.grad_fn is not None:
            output.grad_fn.register_prehook(stamp)

    handles = [module.register_forward_pre_hook(stamp) for module in model.modules()]
    handles += [module.register_forward_hook(returned) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _flop_counter(model: nn.Module) -> Iterator[None]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        yield


@contextmanager
def _empty_mode(model: nn.Module) -> Iterator[None]:
    with EmptyMode():
        yield


@contextmanager
def _torch_profiler(model: nn.Module) -> Iterator[None]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]):
        yield


@contextmanager
def _deepspeed(model: nn.Module) -> Iterator[None]:
    FlopsProfiler = import_module("deepspeed.profiling.flops_profiler").FlopsProfiler

    profiler = FlopsProfiler(model)
    profiler.start_profile()
    try:
        yield
    finally:
        profiler.end_profile()


#: Variants by their name in the table.  ``plain`` compared with itself shows the noise of the machine.
VARIANTS = {
    "plain": Variant(_plain),
    "quiet": Variant(_quiet),
    "timed": Variant(_timed),
    "counted": Variant(_counted, share=8),
    "hooks": Variant(_each(_hooks), share=2),
    "DeepSpeed FlopsProfiler": Variant(_each(_deepspeed), share=8, needs="deepspeed"),
    "empty mode": Variant(_each(_empty_mode), share=8),
    "FlopCounterMode": Variant(_each(_flop_counter), share=8),
    "torch.profiler": Variant(_each(_torch_profiler), share=8),
}
