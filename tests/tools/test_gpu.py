"""The checks of ``make gpu`` that a CPU can run; what only a GPU shows is named and not checked."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.forking.server import forking_python

TOOLS = Path(__file__).parents[2] / "tools"
CPU = torch.device("cpu")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return import_module("gpu.__main__")


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return import_module("gpu.finding")


@pytest.mark.parametrize(
    ("title", "checked"), [("Tokens of experts", 2), ("MFU", 2), ("Memory", 0), ("Triton kernels", 0)]
)
def test_parts_hold_on_a_cpu(page: ModuleType, finding: ModuleType, title: str, checked: int) -> None:
    rows = page.PARTS[title](CPU)
    assert [row for row in rows if row.verdict == finding.FAILED] == []
    assert len([row for row in rows if row.verdict == finding.KEPT]) == checked


def test_planted_times_are_read_back(page: ModuleType) -> None:
    """On a CPU the modules sleep, which takes at least the planted time; a busy machine makes it longer."""
    rows = page.PARTS["Times of modules against kernels of known length"](CPU)
    assert [row.what for row in rows] == [
        f"{phase} of {name}" for name in ("first", "second", "third") for phase in ("forward", "backward")
    ]
    for row, planted_ms in zip(rows, (2, 4, 5, 3, 10, 1), strict=True):
        assert float(row.measured.split()[0]) >= planted_ms
        assert row.expected.startswith(f"{planted_ms}.000 ms")


def test_jobs_of_several_ranks(
    page: ModuleType, finding: ModuleType, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forking = str(forking_python(clean_env))
    monkeypatch.setattr(import_module("gpu.ranks"), "PYTHON", forking)
    monkeypatch.setenv("PYTHON_EXEC", forking)  # read by torchrun
    rows = page.PARTS["Several ranks on one device"](CPU)
    assert [row for row in rows if row.verdict == finding.FAILED] == []
    assert [row.what for row in rows if row.verdict == finding.NEEDS_GPU] == [
        "NCCL, one rank, DDP",
        "NCCL with --collective-timing, one rank, DDP",
    ]
    assert len([row for row in rows if row.verdict == finding.KEPT]) == 6


def test_the_page_is_written_on_a_gpu_only(
    page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "GPU.md"
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--only", "Memory", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        page.main()
    shown = capsys.readouterr()
    assert ended.value.code == 0
    assert "| peak memory of the allocator |  |  | needs a GPU |" in shown.out
    assert "0 of 1 checks failed, 1 need a GPU" in shown.err
    assert not out.exists()


def test_a_part_that_raises_is_a_failed_check(page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> list[object]:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(page.PARTS, "Memory", broken)
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--only", "Memory"])
    with pytest.raises(SystemExit) as ended:
        page.main()
    assert ended.value.code == 1


@pytest.mark.parametrize(("measured", "kept"), [(10.4, True), (9.6, True), (10.6, False), (9.4, False)])
def test_near_allows_a_share(finding: ModuleType, measured: float, kept: bool) -> None:
    row = finding.near("time", measured, 10.0, "ms", relative=0.05)
    assert row.verdict == (finding.KEPT if kept else finding.FAILED)


def test_exact_values_and_bounds(finding: ModuleType) -> None:
    assert finding.equal("params", 3, 3).verdict == finding.KEPT
    assert finding.equal("params", 3, 4).verdict == finding.FAILED
    assert finding.at_most("launches added", 0, 0).verdict == finding.KEPT
    assert finding.at_most("launches added", 1, 0).verdict == finding.FAILED
