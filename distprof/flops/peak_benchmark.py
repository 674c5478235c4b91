"""Measures the peak of a device in matrix products, in each arithmetic, for devices without a published peak.

It times square matmuls of growing size, each several times, and takes the fastest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from distprof.clock import Clock, SystemClock
from distprof.records import FLOPS_PER_MAC

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
_AT_LEAST_NS = 10_000_000  # one timing runs as many matmuls as take this long, to hide the time of their launch
_TIMINGS = 5
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Product = Callable[[], object]


@dataclass(frozen=True)
class Fastest:
    """The fastest matmul in one arithmetic, of ``size`` x ``size``."""

    tflops: float
    size: int


def arithmetics(device: torch.device) -> tuple[str, ...]:
    """Returns the arithmetics to measure on a device."""
    if device.type != "cuda":
        return ("fp32", "bf16", "fp16")
    has_tf32 = not torch.version.hip and torch.cuda.get_device_capability(device) >= (8, 0)
    return ("fp32", *(("tf32",) if has_tf32 else ()), "bf16", "fp16", "fp8")


def measure(device: torch.device, arithmetic: str, seconds: float, clock: Clock | None = None) -> Fastest | None:
    """Returns the fastest matmul found in about ``seconds``; None if the device cannot run any."""
    with _precision(arithmetic), contextlib.suppress(RuntimeError, AttributeError):  # no kernel, or no memory
        return max(_timings(device, arithmetic, seconds, clock or SystemClock()), key=lambda found: found.tflops)
    return None


def _timings(device: torch.device, arithmetic: str, seconds: float, clock: Clock) -> Iterator[Fastest]:
    """Yields timings until the next size would take longer than the time left; always tries the first size."""
    deadline = clock.mono_ns() + int(seconds * 1e9)
    for size in SIZES:
        try:
            product = _product(device, arithmetic, size)
            _time(product, 1, device, clock)  # warms up: threads, workspaces, choice of a kernel
            one = _time(product, 1, device, clock)
        except RuntimeError:
            if size == SIZES[0]:
                raise
            return
        repeats = max(1, _AT_LEAST_NS // max(one, 1))
        for _ in range(_TIMINGS):
            elapsed = _time(product, repeats, device, clock)
            yield Fastest(FLOPS_PER_MAC * size**3 * repeats / max(elapsed, 1) / 1e3, size)
            if clock.mono_ns() > deadline:
                return
        if clock.mono_ns() + 3 * 8 * one > deadline:
            return


def _time(product: Product, repeats: int, device: torch.device, clock: Clock) -> int:
    """Returns the ns of ``repeats`` products, until all are complete."""
    began = clock.mono_ns()
    for _ in range(repeats):
        product()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock.mono_ns() - began


def _product(device: torch.device, arithmetic: str, size: int) -> Product:
    """Returns a function that multiplies the same two matrices at each call."""
    if arithmetic == "fp8":
        a = torch.randn(size, size, device=device).to(torch.float8_e4m3fn)
        scale = torch.ones((), device=device)
        return lambda: torch._scaled_mm(a, a.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)
    dtype = _DTYPES[arithmetic]
    a, b = torch.randn(size, size, device=device, dtype=dtype), torch.randn(size, size, device=device, dtype=dtype)
    result = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=result)


@contextlib.contextmanager
def _precision(arithmetic: str) -> Iterator[None]:
    """Lets fp32 run in TF32 only if that is measured; restores torch's setting."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if arithmetic == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
