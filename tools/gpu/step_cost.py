"""What recording adds to a step: time, kernel launches, and calls that wait for the device."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import torch
from bench.gpt import Training
from bench.shapes import SHAPES, Shape
from bench.steps import measure
from bench.variants import VARIANTS, Around
from torch.profiler import ProfilerActivity, profile

from gpu.finding import Finding, at_most, needs_gpu

_PAIRS = 60
#: 164 modules, and 1,009.
_MODELS = (
    Shape(layers=12, width=768, heads=12, vocabulary=4096, batch=8, tokens=512),
    Shape(layers=77, width=256, heads=4, vocabulary=1024, batch=8, tokens=256),
)
_ON_CPU = (SHAPES["small"],)
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


def step_cost(device: torch.device) -> list[Finding]:
    on_gpu = device.type == "cuda"
    rows = []
    for shape in _MODELS if on_gpu else _ON_CPU:
        training = Training(shape, device)
        rows += _added_time(training, _PAIRS if on_gpu else 6)
        rows += _added_calls(training) if on_gpu else needs_gpu("kernel launches added", "waits for the device added")
    return rows


def _added_time(training: Training, pairs: int) -> list[Finding]:
    rows = []
    for name in ("quiet", "timed"):
        found = measure(training, VARIANTS[name], pairs)
        what = f"{name} step of {found.modules} modules, {found.plain_ms:.1f} ms of CPU time"
        measured = (
            f"wall {found.wall.shown(3)}, CPU {found.cpu.shown(3)}, added {found.added_ms.shown(3)} ms of CPU time"
        )
        rows.append(Finding(what, measured))
    return rows


def _added_calls(training: Training) -> list[Finding]:
    """Compares the CUDA calls of a plain step and of a timed one."""
    plain = _cuda_calls(training, nullcontext)
    with VARIANTS["timed"].ready(training) as around:
        _cuda_calls(training, around)  # tables are allocated
        timed = _cuda_calls(training, around)
    what = f"{training.modules} modules, a timed step"
    return [
        at_most(f"{what}: kernel launches added", _number(timed, _LAUNCHES) - _number(plain, _LAUNCHES), 0),
        at_most(f"{what}: waits for the device added", _number(timed, _WAITS) - _number(plain, _WAITS), 0),
        Finding(f"{what}: events recorded", str(timed["cudaEventRecord"] - plain["cudaEventRecord"])),
    ]


def _cuda_calls(training: Training, around: Around) -> Counter[str]:
    """Returns how often a step calls each function of the CUDA runtime."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as traced, around():
        training.step()
    return Counter({event.key: event.count for event in traced.key_averages() if event.key.startswith(("cuda", "cu"))})


def _number(calls: Counter[str], names: tuple[str, ...]) -> int:
    return sum(calls[name] for name in names)
