"""Tests of the hook after optimizer steps: it can be removed at any time without failing the running step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.recording import record
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from distprof.hooks.optimizer_hook import OptimizerHook
from distprof.records import End, Step


@pytest.fixture
def sgd() -> Iterator[SGD]:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    yield SGD([parameter], 0.1)


def leave_at_the_second_step(seen: list[Optimizer]) -> OptimizerHook:
    def stepped(optimizer: Optimizer) -> None:
        seen.append(optimizer)
        if len(seen) == 2:
            hook.remove()

    hook = OptimizerHook(stepped)
    return hook


@pytest.mark.parametrize("others", [0, 1, 2])
def test_removal_inside_of_the_hook(sgd: SGD, others: int) -> None:
    seen: list[Optimizer] = []
    calls: list[int] = []
    leave_at_the_second_step(seen)
    later = [register_optimizer_step_post_hook(lambda *_: calls.append(1)) for _ in range(others)]
    for _ in range(4):
        sgd.step()
    assert seen == [sgd, sgd] and len(calls) == 4 * others
    for handle in later:
        handle.remove()


def test_removal_from_outside_is_immediate(sgd: SGD) -> None:
    hook = OptimizerHook(lambda _: None)
    later = register_optimizer_step_post_hook(lambda *_: None)
    sgd.step()
    hook.remove()
    hook.remove()
    later.remove()


def test_a_second_removal_completes_a_pending_one(sgd: SGD) -> None:
    seen: list[Optimizer] = []
    hook = leave_at_the_second_step(seen)
    later = register_optimizer_step_post_hook(lambda *_: None)
    sgd.step()
    sgd.step()
    hook.remove()
    later.remove()


def test_removal_beside_hooks_before_the_step(sgd: SGD) -> None:
    """The hook that would remove it is not the last then, and stays inactive until removed."""
    seen: list[Optimizer] = []
    hook = leave_at_the_second_step(seen)
    later = register_optimizer_step_post_hook(lambda *_: None)
    sgd.step()
    sgd.step()
    before = register_optimizer_step_pre_hook(lambda *_: None)
    sgd.step()
    sgd.step()
    assert len(seen) == 2
    hook.remove()
    before.remove()
    later.remove()


def test_a_script_with_own_hooks_trains_on_after_the_window(tmp_path: Path) -> None:
    calls: list[int] = []

    def job() -> None:
        model = nn.Linear(2, 2)
        optimizer = SGD(model.parameters(), 0.1)
        handle = register_optimizer_step_post_hook(lambda *_: calls.append(1))
        for _ in range(4):
            model(torch.ones(2, 2)).sum().backward()
            optimizer.step()
        handle.remove()

    seen = record(tmp_path, job, timed=1)
    assert len(calls) == 4
    assert len(seen.of(Step)) == 1 and seen.of(End)[0].reason == "window complete"
