"""Measuring a peak: the fastest of several matmuls, in about the given time."""

from __future__ import annotations

import pytest
import torch
from support.simulated.clock import FakeClock

from distprof.flops import peak_benchmark
from distprof.flops.peak_benchmark import arithmetics, measure

CPU = torch.device("cpu")


class Ticking(FakeClock):
    """A clock on which a matmul of 256 takes 1 ms, one of 512 takes 4 ms (twice the speed), and so on."""

    def product(self, device: torch.device, arithmetic: str, size: int) -> peak_benchmark.Product:
        return lambda: self.advance_ms((size / 256) ** 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    ticking = Ticking()
    monkeypatch.setattr(peak_benchmark, "_product", ticking.product)
    return ticking


def test_fastest_counts(clock: Ticking) -> None:
    found = measure(CPU, "fp32", 1.0, clock)
    assert found and (found.tflops, found.size) == pytest.approx((2 * 2048**3 / 64e-3 / 1e12, 2048))
    assert clock.mono_ns() < 1.5e9, "4096 would have taken 1.8 s more"


def test_smallest_size_is_always_tried(clock: Ticking) -> None:
    found = measure(CPU, "fp32", 1e-9, clock)
    assert found and (found.tflops, found.size) == pytest.approx((2 * 256**3 / 1e-3 / 1e12, 256))


def test_device_without_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> peak_benchmark.Product:
        raise RuntimeError("not implemented for this device")

    monkeypatch.setattr(peak_benchmark, "_product", refuse)
    assert measure(CPU, "fp32", 0.01) is None


def test_out_of_memory_ends_the_search(monkeypatch: pytest.MonkeyPatch, clock: Ticking) -> None:
    def small(device: torch.device, arithmetic: str, size: int) -> peak_benchmark.Product:
        if size > 512:
            raise torch.OutOfMemoryError("out of memory")
        return clock.product(device, arithmetic, size)

    monkeypatch.setattr(peak_benchmark, "_product", small)
    found = measure(CPU, "fp32", 10.0, clock)
    assert found is not None and found.size == 512


def test_torch_precision_is_restored() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert measure(CPU, "fp32", 0.01)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("arithmetic", arithmetics(CPU))
def test_cpu_arithmetics(arithmetic: str) -> None:
    found = measure(CPU, arithmetic, 0.02)
    assert found is not None and 0 < found.tflops < 1000


def test_tf32_from_ampere_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert arithmetics(cuda) == ("fp32", "tf32", "bf16", "fp16", "fp8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert "tf32" not in arithmetics(cuda)
