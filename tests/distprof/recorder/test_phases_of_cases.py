"""Tests of scripts whose time had the wrong phase: the least time of each phase, known from the scripts."""

from __future__ import annotations

import runpy
from pathlib import Path
from statistics import median

import pytest
import torch
from support.recording import Seen, record, train
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from distprof.clock import SystemClock
from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run
from distprof.merge.text import TextOptions, render
from distprof.probes.batch import BATCH_FIRST, BATCH_SECOND, ONE_IN_CLOSURES, SHARED_OR_NOT, UNKNOWN_ORDER
from distprof.records import TRAINING, Counts, End, Step

CASES = Path(__file__).parents[2] / "cases"
MS = 1_000_000


def run(folder: Path, case: str, **settings: int) -> Seen:
    return record(folder, lambda: runpy.run_path(str(CASES / f"{case}.py")), clock=SystemClock(), **settings)


@pytest.mark.parametrize(("case", "apart_ms"), [("between", 20), ("rollout", 19 * 2)])
def test_time_between_forward_and_backward_is_a_phase(tmp_path: Path, case: str, apart_ms: float) -> None:
    steps = [step for step in run(tmp_path, case, warmup=2, timed=9).of(Step) if step.mode == TRAINING]
    assert len(steps) == 9
    for step in steps:
        assert sum(step.phases_ns.values()) == step.duration_ns
        assert step.phases_ns["outside"] >= apart_ms * MS
    assert median(step.phases_ns["forward"] / step.phases_ns["outside"] for step in steps) < 0.5


def test_what_a_loader_does_is_no_model(tmp_path: Path) -> None:
    """Sixteen samples a batch wait 2 ms each, in a module; the model is a Linear(32, 32)."""
    found = run(tmp_path, "dataloader_transform", warmup=2, count=True, timed=9)
    assert [row.class_name for row in found.rows] == ["Linear"]
    for step in found.of(Step):
        assert step.phases_ns["data"] >= 16 * 2 * MS
        assert (step.calls.tolist(), step.samples) == ([1], 16)
    counts = found.one(Counts)
    assert (counts.calls.tolist(), counts.samples) == ([1], 16)
    assert counts.forward_flops.tolist() == [16 * (2 * 32 * 32 + 32)]
    assert counts.outside["forward_flops"] == 2 * 16 * 32, "square and mean"


class Scaling(nn.Module):
    """A transform with a parameter: it could be a model."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Scaled(Dataset[Tensor]):
    def __init__(self) -> None:
        self.scaling = Scaling()

    def __len__(self) -> int:
        return 12

    def __getitem__(self, place: int) -> Tensor:
        scaled: Tensor = self.scaling(torch.ones(8))
        return scaled


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("trains", [False, True])
def test_a_transform_that_could_be_a_model_is_none(tmp_path: Path, trains: bool, workers: int) -> None:
    """The transform runs before the first model, between forwards, or in a watched step."""
    model = nn.Linear(8, 8)

    def job() -> None:
        loader = DataLoader(Scaled(), batch_size=2, num_workers=workers)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for x in loader:
            if trains:
                model(x).sum().backward()
                optimizer.step()
            else:
                with torch.no_grad():
                    model(x)

    found = record(tmp_path, job, clock=SystemClock(), warmup=1, count=True, timed=2)
    assert [row.class_name for row in found.rows] == ["Linear"]
    assert [step.iteration for step in found.of(Step)] == [2, 3]
    assert found.one(Counts).forward_macs.tolist() == [2 * 8 * 8]
    assert found.of(End)[-1].iterations == 4


def test_a_model_that_loads_its_own_batch_is_seen_whole(tmp_path: Path) -> None:
    class Loads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)
            self.data = Scaled()

        def forward(self) -> Tensor:
            (x,) = DataLoader(self.data, batch_size=12)
            y: Tensor = self.inner(x)
            return y

    model = Loads()
    found = record(tmp_path, lambda: train(model, steps=3), warmup=1, count=True, timed=1)
    assert found.macs() == {"inner": 12 * 8 * 8}
    assert found.calls()["inner"] == 1


@pytest.mark.parametrize(
    ("case", "micro_batches", "size", "found"),
    [
        ("seq_first", 1, 20, BATCH_SECOND),
        ("lbfgs", 5, 20, BATCH_FIRST + ONE_IN_CLOSURES),
        ("rollout", 1, 0, SHARED_OR_NOT),
    ],
)
def test_a_batch_size_says_how_it_was_found(
    tmp_path: Path, case: str, micro_batches: int, size: int, found: str
) -> None:
    seen = run(tmp_path, case, warmup=1, count=True, timed=2)
    counts, step = seen.of(Counts)[-1], seen.of(Step)[-1]
    for one in (counts, step):
        assert (one.micro_batches, one.batch_size, one.samples, one.batch_found) == (micro_batches, size, size, found)
    report = analyse(load_run(tmp_path))
    assert report.summary.batch_size_per_rank == (size or None)
    assert report.summary.unavailable.get("samples_per_second", found) == found
    assert found in " ".join(render(report, TextOptions()).split())


def test_order_of_dimensions_is_unknown_without_counting(tmp_path: Path) -> None:
    for step in run(tmp_path, "seq_first", warmup=1, timed=2).of(Step):
        assert (step.samples, step.batch_found) == (0, UNKNOWN_ORDER)


def test_occasional_evaluation_is_reported_and_lowers_throughput(tmp_path: Path) -> None:
    """Two of ten iterations begin with an evaluation of at least 30 ms."""
    steps = run(tmp_path, "evaluate_every_5", warmup=4, count=True, timed=10).of(Step)
    evaluating = [step for step in steps if step.phases_ns["evaluation"]]
    assert [step.iteration % 5 for step in evaluating] == [0, 0]
    summary = analyse(load_run(tmp_path)).summary
    seen = summary.evaluations
    assert (seen.steps, seen.timed_steps) == (2, 10)
    assert seen.time_ns is not None and seen.time_ns.median >= 30 * MS
    assert summary.samples_per_second == pytest.approx(160 / sum(step.duration_ns for step in steps) * 1e9)
    assert summary.samples_per_second and summary.samples_per_second_at_median
    assert summary.samples_per_second < summary.samples_per_second_at_median
    assert "evaluation, in 2 of 10 steps (in samples/second):" in render(analyse(load_run(tmp_path)), TextOptions())
