"""Times of modules against kernels of known length, in forward and in backward.

Autograd runs the backward of a GPU on a thread of its own, so these rows also show that its time is credited to the
right module there.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from gpu.finding import Finding, near
from gpu.training import module, train_recorded

#: Milliseconds of forward and backward of each module.
_PLANTED = {"first": (2.0, 4.0), "second": (5.0, 3.0), "third": (10.0, 1.0)}
_CYCLES = 50_000_000
#: A module's own work beside its sleep.
_OWN_MS = 0.3


class _Clock:
    """Keeps the device busy for a given time."""

    def __init__(self, device: torch.device) -> None:
        self._cycles_per_ms = _measure_cycles_per_ms() if device.type == "cuda" else 0.0

    def spend(self, milliseconds: float) -> None:
        if self._cycles_per_ms:
            torch.cuda._sleep(round(milliseconds * self._cycles_per_ms))
        else:
            time.sleep(milliseconds / 1e3)


def _measure_cycles_per_ms() -> float:
    """Measures with events around one long kernel, after one that warms the device up."""
    torch.cuda._sleep(_CYCLES)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.cuda._sleep(_CYCLES)
    end.record()
    end.synchronize()
    return _CYCLES / float(start.elapsed_time(end))


class _Spend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: _Clock, forward_ms: float, backward_ms: float) -> Tensor:
        ctx.clock, ctx.backward_ms = clock, backward_ms
        clock.spend(forward_ms)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.clock.spend(ctx.backward_ms)
        return gradient, None, None, None


class _Sleeper(nn.Module):
    def __init__(self, clock: _Clock, forward_ms: float, backward_ms: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self._spend = clock, forward_ms, backward_ms

    def forward(self, x: Tensor) -> Tensor:
        spent: Tensor = _Spend.apply(x * self.weight, *self._spend)
        return spent


class _Model(nn.Module):
    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        for name, (forward_ms, backward_ms) in _PLANTED.items():
            self.add_module(name, _Sleeper(clock, forward_ms, backward_ms))

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x.sum()


def timestamps(device: torch.device) -> list[Finding]:
    model = _Model(_Clock(device)).to(device)
    x = torch.ones(8, device=device)
    _, report = train_recorded(model, lambda: model(x), count=False)
    rows = []
    for name, (forward_ms, backward_ms) in _PLANTED.items():
        found = module(report, name)
        rows.append(_row(f"forward of {name}", found.forward_self_ns, forward_ms))
        rows.append(_row(f"backward of {name}", found.backward_self_ns, backward_ms))
    return rows


def _row(what: str, measured_ns: float | None, planted_ms: float) -> Finding:
    return near(what, (measured_ns or 0.0) / 1e6, planted_ms, "ms", relative=0.05, absolute=_OWN_MS)
