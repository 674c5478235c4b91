"""What may be switched on around a few training steps: distprof's own recorder, and what others offer for the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from torch import nn

from distprof.recorder import Recorder
from distprof.rundir import RunDir
from distprof.settings import Settings
from distprof.shard import read_shard

#: Switched on around one block of steps of this model: the first step is not measured, this many others are.
Around = Callable[[nn.Module, int], AbstractContextManager[None]]


@dataclass(frozen=True)
class Variant:
    """``steps``: measured in one block, by model.  ``needs``: the package that has to be installed."""

    around: Around
    steps: dict[str, int]
    needs: str = "torch"

    @property
    def installed(self) -> bool:
        return find_spec(self.needs) is not None


def _plain(model: nn.Module, steps: int) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def _quiet(model: nn.Module, steps: int) -> Iterator[None]:
    with _recorder({"step": 0, "counts": 0}, warmup=10 * steps, timed=1):
        yield


@contextmanager
def _timed(model: nn.Module, steps: int) -> Iterator[None]:
    with _recorder({"step": steps, "end": 1}, warmup=1, timed=steps, count=False):
        yield


@contextmanager
def _counted(model: nn.Module, steps: int) -> Iterator[None]:
    with _recorder({"counts": steps, "end": 1}, warmup=1, timed=0):
        yield


@contextmanager
def _recorder(expected: dict[str, int], **settings: Any) -> Iterator[None]:
    """A recorder as a rank has it; its shard must hold the ``expected`` records in the end."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        with recording(Path(folder), **settings) as shard:
            yield
        found = Counter(record.KIND for record in read_shard(shard()).records)
        if any(found[kind] != number for kind, number in expected.items()):
            raise RuntimeError(f"the shard holds {dict(found)}: expected {expected}")


@contextmanager
def recording(folder: Path, **settings: Any) -> Iterator[Callable[[], Path]]:
    """A recorder at work in this process, writing to a run in ``folder``; yields what finds its shard."""
    run = RunDir(folder)
    run.shards.mkdir()
    recorder = Recorder(Settings(run_dir=str(folder), run_id="bench", **settings))
    recorder.arm()
    try:
        yield lambda: run.shard_files()[0]
    finally:
        recorder.finish()


@contextmanager
def _hooks(model: nn.Module, steps: int) -> Iterator[None]:
    """The least that plain hooks can do: a stamp as each module is called, returns, and has its backward begin."""
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
def _flop_counter(model: nn.Module, steps: int) -> Iterator[None]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        yield


@contextmanager
def _torch_profiler(model: nn.Module, steps: int) -> Iterator[None]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]):
        yield


@contextmanager
def _deepspeed(model: nn.Module, steps: int) -> Iterator[None]:
    FlopsProfiler = import_module("deepspeed.profiling.flops_profiler").FlopsProfiler

    profiler = FlopsProfiler(model)
    profiler.start_profile()
    try:
        yield
    finally:
        profiler.end_profile()


#: A block is to be shorter than the moods of a machine that has other work; of timed steps, the default window.
_ONE, _FEW, _WINDOW = {"small": 1, "large": 1}, {"small": 5, "large": 2}, {"small": 10, "large": 3}
#: By the name in the table.  ``plain`` against itself shows what the machine's own noise is.
VARIANTS = {
    "plain": Variant(_plain, _FEW),
    "quiet": Variant(_quiet, _FEW),
    "timed": Variant(_timed, _WINDOW),
    "counted": Variant(_counted, _ONE),
    "hooks": Variant(_hooks, _WINDOW),
    "DeepSpeed FlopsProfiler": Variant(_deepspeed, _FEW, "deepspeed"),
    "FlopCounterMode": Variant(_flop_counter, _ONE),
    "torch.profiler": Variant(_torch_profiler, _FEW),
}
