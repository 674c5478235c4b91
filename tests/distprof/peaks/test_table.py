"""The table of peaks: which devices it knows by what torch calls them, and that its figures agree with themselves."""

from __future__ import annotations

import re

import pytest

from distprof.errors import UsageError
from distprof.peaks.table import GIVEN, MEASURED, Engine, KnownDevice, Peaks, known_device, table

ARITHMETICS = ["fp64", "fp32", "tf32", "bf16", "fp16", "fp8"]

#: What torch.cuda.get_device_name() gives (on a Gaudi: torch.hpu's), and the dense TFLOPS of bf16, fp32 and tf32.
CALLED = {
    "NVIDIA A100-SXM4-40GB": (312, 19.5, 156),
    "NVIDIA A100-SXM4-80GB": (312, 19.5, 156),
    "A100-SXM4-40GB": (312, 19.5, 156),
    "NVIDIA A100-PCIE-40GB": (312, 19.5, 156),
    "NVIDIA A100 80GB PCIe": (312, 19.5, 156),
    "NVIDIA H100 80GB HBM3": (989.4, 66.9, 494.7),
    "NVIDIA H100 PCIe": (756, 51.2, 378),
    "NVIDIA H100 NVL": (835.5, 60, 417.5),
    "NVIDIA H200": (989.5, 67, 494.5),
    "NVIDIA H200 NVL": (835.5, 60, 417.5),
    "NVIDIA B200": (2250, 75, 1100),
    "NVIDIA L40S": (362.05, 91.6, 183),
    "AMD Instinct MI300X": (1307.4, 163.4, 653.7),
    "AMD Instinct MI300X OAM": (1307.4, 163.4, 653.7),
    "GAUDI3": (1835, None, None),
}


@pytest.mark.parametrize(("name", "tflops"), CALLED.items(), ids=str)
def test_devices_are_known_by_what_torch_calls_them(name: str, tflops: tuple[float | None, ...]) -> None:
    known = known_device(name)
    assert known is not None
    assert tuple(known.tflops.get(arithmetic) for arithmetic in ("bf16", "fp32", "tf32")) == tflops
    assert sum(other.is_called(name) for other in table()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100-SXM-64GB",  # one of its own kind, with more cores
        "NVIDIA H800",
        "NVIDIA H20",
        "NVIDIA L40",
        "NVIDIA GB200",
        "NVIDIA B200 of another make",
        "AMD Instinct MI300A",
        "AMD Instinct MI325X",
        "Tesla V100-SXM2-16GB",
        "NVIDIA GeForce RTX 4090",
        "AMD EPYC (family 25, model 17)",
    ],
)
def test_parts_and_relatives_of_a_device_are_not_taken_for_it(name: str) -> None:
    assert known_device(name) is None


@pytest.mark.parametrize("known", table(), ids=lambda known: known.device)
def test_each_figure_is_dense_and_has_its_source(known: KnownDevice) -> None:
    assert known.maker in known.source and re.match(r"https://\S+$", known.url) and known.note
    assert known.tflops.keys() <= set(ARITHMETICS) and all(value > 0 for value in known.tflops.values())
    bf16, ratios = known.tflops["bf16"], {"fp16": 1.0, "fp8": 2.0, "tf32": 0.5}
    if known.device.startswith("Intel"):
        ratios["fp8"] = 1.0  # its matrix engines are as fast in both
    for arithmetic, ratio in ratios.items():
        if arithmetic in known.tflops:  # a figure with sparsity among dense ones would be off by two
            assert known.tflops[arithmetic] == pytest.approx(ratio * bf16, rel=0.025)


def test_what_the_user_says_goes_first_then_the_maker_then_what_was_measured() -> None:
    h100, cpu = Engine("NVIDIA H100 PCIe", 0, "bf16"), Engine("Some CPU", 2, "fp32")
    measured = {h100: 600.0, h100._replace(arithmetic="int8"): 700.0, cpu: 0.1}
    peaks = Peaks(measured=measured)
    assert peaks.find(h100) == (756, "NVIDIA H100 Tensor Core GPU Architecture, white paper")
    assert peaks.find(h100._replace(arithmetic="int8")) == (700, MEASURED)
    assert peaks.find(cpu) == (0.1, MEASURED)
    assert Peaks(5.0, measured).find(h100) == Peaks(5.0, measured).find(cpu) == (5, GIVEN)


def test_a_figure_for_other_threads_is_none_for_these() -> None:
    cpu = Engine("Some CPU", 2, "fp32")
    peaks = Peaks(measured={cpu: 0.1})
    assert peaks.find(cpu._replace(threads=4)) is peaks.find(cpu._replace(arithmetic="bf16")) is None


@pytest.mark.parametrize("given", [0.0, -1.0, float("inf"), float("nan")])
def test_a_peak_that_is_none_is_refused(given: float) -> None:
    with pytest.raises(UsageError, match="give a number above 0"):
        Peaks(given)
