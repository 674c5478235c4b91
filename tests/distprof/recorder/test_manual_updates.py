"""Tests of training without torch.optim: iterations are found by changes of gradients."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from support.recording import clock, record
from torch import nn

from distprof.records import TRAINING, Counts, Step

CASES = Path(__file__).parents[2] / "cases"
Update = Callable[[list[nn.Parameter]], None]


def on_data(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.data.add_(parameter.grad, alpha=-0.1)  # type: ignore[arg-type]
        parameter.grad = None


@torch.no_grad()
def in_place(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.sub_(0.1 * parameter.grad)  # type: ignore[operator]
        parameter.grad.zero_()  # type: ignore[union-attr]


def nothing(parameters: list[nn.Parameter]) -> None:
    pass


def training(update: Update, backwards: int = 1, steps: int = 12, then: Iterable[Update] = ()) -> Callable[[], None]:
    def job() -> None:
        model = nn.Linear(16, 8)
        for act in (*[update] * steps, *then):
            for _ in range(backwards):
                model(torch.ones(4, 16)).square().mean().backward()
            act([*model.parameters()])

    return job


@pytest.mark.parametrize("update", [on_data, in_place])
@pytest.mark.parametrize("backwards", [1, 3])
def test_an_update_by_hand_ends_an_iteration(tmp_path: Path, update: Update, backwards: int) -> None:
    seen = record(tmp_path, training(update, backwards), warmup=4, count=True, timed=3)
    counts, steps = [one for one in seen.of(Counts) if one.mode == TRAINING], seen.of(Step)
    assert [one.iteration for one in counts] == [4]
    assert counts[0].forward_macs.sum() == counts[0].backward_macs.sum() == backwards * 4 * 16 * 8
    # A product and a sum a parameter; in place of its gradient being taken away, on_data's sum alone has a factor.
    assert counts[0].outside["optimizer_flops"] in (16 * 8 + 8, 2 * (16 * 8 + 8))
    assert [(one.mode, one.iteration, one.micro_batches, one.samples) for one in steps] == [
        (TRAINING, number, backwards, 4 * backwards) for number in (5, 6, 7)
    ]


def test_gradients_that_add_up_are_one_iteration(tmp_path: Path) -> None:
    seen = record(tmp_path, training(nothing, steps=20), warmup=1, timed=3)
    assert not seen.of(Step)


def test_late_optimizer_ends_iterations(tmp_path: Path) -> None:
    """As when a scaler skips the first steps: the gradients are removed all the same."""

    def job() -> None:
        model = nn.Linear(16, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: clock.advance_ms(3))
        for step in range(30):
            for _ in range(2):
                model(torch.ones(4, 16)).sum().backward()
            if step > 12:
                optimizer.step()
            optimizer.zero_grad()

    seen = record(tmp_path, job, warmup=1, count=True, timed=3)
    steps = seen.of(Step)[-3:]
    assert [(one.iteration, one.micro_batches) for one in steps] == [(2, 2), (3, 2), (4, 2)]
    assert seen.phases_ms(-1) == {"optimizer": 3}


def test_evaluation_after_training_is_not_recorded(tmp_path: Path) -> None:
    seen = record(tmp_path, lambda: runpy.run_path(str(CASES / "no_optimizer.py")), warmup=5, count=True, timed=5)
    (counts,) = seen.of(Counts)
    assert (counts.mode, counts.iteration, counts.samples) == (TRAINING, 5, 32)
    assert counts.forward_macs.sum() == 32 * (64 * 64 + 64 * 8)
    assert counts.backward_macs.sum() == 32 * (64 * 64 + 2 * 64 * 8)
    assert [(one.mode, one.iteration) for one in seen.of(Step)] == [(TRAINING, number) for number in range(6, 11)]
    assert {row.root for row in seen.rows} == {0}
