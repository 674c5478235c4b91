"""Plants a fault in this rank's model, data loading, optimizer or process, and measures what it really costs."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from soak.skew.cases import Case
from soak.skew.networks import leaves

#: An iteration of the window in which a pause happens, and its length.
PAUSED_ITERATION, PAUSE_MS = 8, 200
_CHECKPOINT_EVERY, _CHECKPOINT_AT = 5, 3
_JITTER_MS = 30
#: An iteration in the middle of the window.
MIDDLE = 9
#: A rank with more work gets so many times the samples.  Twice as many cost these small networks nothing that shows.
MORE_WORK = 8
_LOW_PRIORITY = 15
_VARYING = ("late", "flaky", "grow", "rotating", "everyone", "staircase")
_GARBAGE = 50_000
#: What modules that rest take in an iteration.
_FORWARD_MS, _BACKWARD_MS = 60, 120
#: How long a throttled process runs at a time, and is stopped at a time.
_RUNS_S = 0.006
#: Stops the process with this id for so many seconds and continues it for so many, again and again, until it is gone.
_THROTTLE = """
import os, signal, sys, time
process, stopped, running = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
while os.getppid() == process:
    os.kill(process, signal.SIGSTOP)
    time.sleep(stopped)
    os.kill(process, signal.SIGCONT)
    time.sleep(running)
"""


class Burner:
    """Computes matrix products for about so many milliseconds of an idle core."""

    def __init__(self) -> None:
        self._matrix = torch.ones(128, 128)
        self._per_ms = 1.0 / min(self._milliseconds(20) / 20 for _ in range(20))

    def burn(self, ms: float) -> None:
        self._products(max(1, int(self._per_ms * ms)))

    def _milliseconds(self, count: int) -> float:
        started = time.perf_counter()
        self._products(count)
        return 1e3 * (time.perf_counter() - started)

    def _products(self, count: int) -> None:
        with torch.no_grad():
            for _ in range(count):
                _ = self._matrix @ self._matrix


class Fault:
    """The fault of one rank.  ``culprit``: whether this rank has it; it has none while not ``active``."""

    def __init__(self, case: Case, rank: int, burner: Burner) -> None:
        self.case, self.rank, self.culprit = case, rank, rank in case.culprits
        self.active = True
        self.iteration = -1
        self.lost_ns: dict[int, int] = defaultdict(int)  # by iteration
        self._burner = burner

    def lose(self, ms: float) -> None:
        """Loses time: computes if the fault is one that burns, sleeps otherwise."""
        if not self.active:
            return
        started = time.perf_counter_ns()
        if self.case.fault.endswith("_burn"):
            self._burner.burn(ms)
        else:
            time.sleep(ms / 1e3)
        self.lost_ns[self.iteration] += time.perf_counter_ns() - started

    def begin(self, iteration: int) -> None:
        """Begins an iteration, outside of modules and data loading."""
        self.iteration = iteration
        if self.culprit and self.case.fault == "out":
            self.lose(self.case.ms)
        if self.culprit and self.case.fault == "ckpt" and iteration % _CHECKPOINT_EVERY == _CHECKPOINT_AT:
            self.lose(PAUSE_MS)

    def plant(self, model: nn.Module, parts: int = 1) -> None:
        """Makes modules of ``model`` slow; each runs ``parts`` times in an iteration."""
        if self.case.rests:
            _rest(leaves(model), parts)
        kind = self.case.fault.removesuffix("_burn")
        if kind == "jitter":
            self._jitter(leaves(model))
        elif kind == "spread" and self.culprit:
            everywhere = leaves(model)
            for module in everywhere:
                self._slow_forward(module, self.case.ms / 2 / len(everywhere) / parts)
                self._slow_backward(module, self.case.ms / 2 / len(everywhere) / parts)
        elif kind == "pause" and self.culprit:
            self._pause(random.Random(5).choice(leaves(model)))
        elif kind == "gc" and self.culprit:
            self._collect_garbage(leaves(model)[0])
        elif self.culprit or kind in ("rotating", "everyone", "staircase"):
            self._plant_in(model, kind, self.case.ms / parts)

    def _plant_in(self, model: nn.Module, kind: str, ms: float) -> None:
        """Makes the case's module slow, if the fault is in it."""
        module = model.get_submodule(self.case.module)
        if kind in ("fwd", "two", "half", *_VARYING) or (kind == "pair" and self.rank == self.case.rank):
            self._slow_forward(module, ms)
        elif kind == "bwd":
            self._slow_backward(module, ms)
        elif kind == "both":
            self._slow_forward(module, ms / 2)
            self._slow_backward(module, ms / 2)

    def collate(self, samples: list[Any]) -> Any:
        """Makes a batch; slow if the fault is in data loading.  A rank with more work gets a part of it only, while the
        fault is not active.
        """
        if self.culprit and (self.case.fault == "data" or (self.case.fault == "pair" and self.rank != self.case.rank)):
            self.lose(self.case.ms)
        if self.culprit and self.case.fault == "uneven" and not self.active:
            samples = samples[: len(samples) // MORE_WORK]
        return torch.utils.data.default_collate(samples)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns AdamW; its step is slow if the fault is in the optimizer."""
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=False)
        if self.culprit and self.case.fault == "opt":
            optimizer.register_step_pre_hook(lambda *_: self.lose(self.case.ms))
        return optimizer

    @contextmanager
    def throughout(self) -> Iterator[None]:
        """Slows this process down as a whole, if that is the fault: another thread holds Python's lock, or the process
        has a low priority, or is stopped every few milliseconds: half of the time, or so long that it has half of the
        processor time that each of the ranks can have.
        """
        kind = self.case.fault if self.culprit else ""
        if kind == "nice":
            os.nice(_LOW_PRIORITY)
        elif kind == "gil":
            threading.Thread(target=_count_for_ever, daemon=True).start()
        if kind not in ("throttle", "halved"):
            yield
            return
        stopped_s = _RUNS_S if kind == "throttle" else _RUNS_S * (2 / _part_of_processor(self.case.ranks) - 1)
        words = [sys.executable, "-S", "-E", "-c", _THROTTLE, str(os.getpid()), str(stopped_s), str(_RUNS_S)]
        with subprocess.Popen(words, env={}) as throttle:
            try:
                yield
            finally:
                throttle.send_signal(signal.SIGKILL)

    def _slow_forward(self, module: nn.Module, ms: float) -> None:
        module.register_forward_pre_hook(lambda *_: self.lose(ms * self._part()))

    def _part(self) -> float:
        """Returns which part of its time a fault costs in this iteration."""
        ranks, kind = self.case.ranks, self.case.fault
        if kind == "rotating":
            return float(self.iteration % ranks == self.rank)
        if kind == "staircase":
            return self.rank / (ranks - 1)
        if kind == "grow":
            return self.iteration / MIDDLE
        return float(self.iteration >= MIDDLE if kind == "late" else self.iteration % 2 if kind == "flaky" else 1)

    def _slow_backward(self, module: nn.Module, ms: float) -> None:
        _before_gradient(module, lambda: self.lose(ms))

    def _pause(self, module: nn.Module) -> None:
        def hook(*_: Any) -> None:
            if self.iteration == PAUSED_ITERATION and not self.lost_ns[self.iteration]:
                self.lose(PAUSE_MS)

        module.register_forward_pre_hook(hook)

    def _collect_garbage(self, module: nn.Module) -> None:
        garbage = [[number, {}] for number in range(_GARBAGE)]

        def hook(*_: Any) -> None:
            if not self.active:
                return
            started = time.perf_counter_ns()
            assert gc.collect() < len(garbage)
            self.lost_ns[self.iteration] += time.perf_counter_ns() - started

        module.register_forward_pre_hook(hook)

    def _jitter(self, modules: list[nn.Module]) -> None:
        """Two modules, others in each iteration, lose up to 30 ms each."""
        rng = random.Random(self.rank * 7919 + self.case.seed)
        plans: dict[int, dict[int, float]] = {}

        def slow(number: int) -> None:
            plan = plans.get(self.iteration)
            if plan is None:
                plan = plans[self.iteration] = {
                    rng.randrange(len(modules)): rng.uniform(0, _JITTER_MS) for _ in range(2)
                }
            if number in plan:
                self.lose(plan.pop(number))

        for number, module in enumerate(modules):
            module.register_forward_pre_hook(lambda *_, number=number: slow(number))


def _part_of_processor(ranks: int) -> float:
    """Returns the part of a processor that each of so many ranks has, if all of them always compute."""
    return min(1.0, len(os.sched_getaffinity(0)) / ranks)


def _count_for_ever() -> None:
    number = 0
    while True:
        number += 1


def _rest(modules: list[nn.Module], parts: int) -> None:
    """Makes modules, which run ``parts`` times in an iteration, take their shares of the times of one iteration."""
    forward, backward = (ms / 1e3 / len(modules) / parts for ms in (_FORWARD_MS, _BACKWARD_MS))
    for module in modules:
        module.register_forward_pre_hook(lambda *_: time.sleep(forward))
        _before_gradient(module, lambda: time.sleep(backward))


def _before_gradient(module: nn.Module, do: Callable[[], None]) -> None:
    """Does something in each backward of a module, when the gradient of its output comes."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return _Gradient.apply(output, do) if isinstance(output, Tensor) else output

    module.register_forward_hook(hook)


class _Gradient(torch.autograd.Function):
    """Hands a tensor on; does something when its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, do: Callable[[], None]) -> Tensor:
        ctx.do = do
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.do()
        return gradients[0], None
