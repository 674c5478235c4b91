"""What a framework only tries out is looked away from."""

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
    """A framework that tries a model out before each step."""

    def __init__(self) -> None:
        self.model = nn.Linear(4, 4)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def try_out(self) -> None:
        for _ in range(2):
            self.model(torch.ones(3, 4)).sum().backward()

    def step(self) -> None:
        self.try_out()
        self.model(torch.ones(2, 4)).sum().backward()
        self.optimizer.step()


@pytest.fixture(autouse=True)
def framework(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module: Any = ModuleType("some_framework")
    module.Trainer = Trainer
    monkeypatch.setitem(sys.modules, "some_framework", module)
    known = {"some_framework": (("Trainer", "try_out"), ("Trainer", "of_another_version"), ("Gone", "x"))}
    monkeypatch.setattr(shape_inference, "_REHEARSALS", known)
    before = Trainer.try_out
    yield
    assert Trainer.try_out is before


@pytest.mark.parametrize("warmup", [0, 1])
def test_it_is_no_iteration_no_work_and_no_micro_batch(tmp_path: Path, warmup: int) -> None:
    """With the first one running before anybody could know of it."""

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


def test_one_that_raises_is_over(tmp_path: Path) -> None:
    told: list[str] = []
    errors: list[object] = []
    watch = ShapeInference(
        lambda: told.append("began"), lambda: told.append("ended"), lambda *what: errors.append(what)
    )
    watch.open()
    watch.open()
    trainer = Trainer()
    trainer.model = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        trainer.try_out()
    watch.close()
    assert (told, errors) == (["began", "ended"], [])


def test_what_is_loaded_is_asked_for_and_nothing_is_imported() -> None:
    assert list(shape_inference._loaded()) == [(Trainer, "try_out")]
    quiet: Callable[..., None] = lambda *_: None  # noqa: E731
    watch = ShapeInference(quiet, quiet, quiet)
    assert not watch.running()
