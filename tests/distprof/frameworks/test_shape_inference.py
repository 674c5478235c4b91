"""A framework's shape inference is not recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.recording import record
from torch import nn

from distprof.frameworks import shape_inference
from distprof.frameworks.shape_inference import ShapeInference
from distprof.records import Counts, Error, Step


class Trainer:
    """A framework that infers shapes before each step."""

    def __init__(self) -> None:
        self.model = nn.Linear(4, 4)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def infer_shapes(self) -> None:
        for _ in range(2):
            self.model(torch.ones(3, 4)).sum().backward()

    def step(self) -> None:
        self.infer_shapes()
        self.model(torch.ones(2, 4)).sum().backward()
        self.optimizer.step()


@pytest.fixture(autouse=True)
def framework(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module: Any = ModuleType("some_framework")
    module.Trainer = Trainer
    monkeypatch.setitem(sys.modules, "some_framework", module)
    known = {"some_framework": (("Trainer", "infer_shapes"), ("Trainer", "of_another_version"), ("Gone", "x"))}
    monkeypatch.setattr(shape_inference, "_METHODS", known)
    before = Trainer.infer_shapes
    yield
    assert Trainer.infer_shapes is before


@pytest.mark.parametrize("warmup", [0, 1])
def test_shape_inference_is_no_work(tmp_path: Path, warmup: int) -> None:
    """The first one begins before it can be patched."""

    def job() -> None:
        trainer = Trainer()
        for _ in range(4):
            trainer.step()

    seen = record(tmp_path, job, warmup=warmup, count=True, timed=2)
    assert not seen.of(Error)
    counts = seen.one(Counts)
    assert (counts.iteration, counts.micro_batches, counts.samples) == (warmup, 1, 2)
    assert (counts.calls.tolist(), counts.forward_macs.tolist(), counts.backward_macs.tolist()) == ([1], [32], [32])
    assert counts.outside["forward_flops"] == 2 * 4, "the sum of the step itself"
    assert [(step.micro_batches, step.samples, step.calls.tolist()) for step in seen.of(Step)] == [(1, 2, [1])] * 2


def test_shape_inference_that_raises(tmp_path: Path) -> None:
    calls: list[str] = []
    errors: list[object] = []
    watch = ShapeInference(
        lambda: calls.append("began"), lambda: calls.append("ended"), lambda *what: errors.append(what)
    )
    watch.open()
    watch.open()
    trainer = Trainer()
    trainer.model = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        trainer.infer_shapes()
    watch.close()
    assert (calls, errors) == (["began", "ended"], [])


def test_nothing_is_imported() -> None:
    assert list(shape_inference._loaded_methods()) == [(Trainer, "infer_shapes")]
    quiet: Callable[..., None] = lambda *_: None  # noqa: E731
    watch = ShapeInference(quiet, quiet, quiet)
    assert not watch.running()
