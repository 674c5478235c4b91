"""Tests of which optimizer steps form one update: those in one backward, and those inside another step."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from support.recording import Seen, Ticking, clock, record
from torch import Tensor, nn

from distprof.records import TRAINING, Counts, Step

CASES = Path(__file__).parents[2] / "cases"
STEPS = 12


def training(model: nn.Module, update: Callable[[], None], steps: int = STEPS) -> None:
    for _ in range(steps):
        model(torch.ones(4, 16)).square().mean().backward()
        update()


def chain(layers: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(16, 16, bias=False) for _ in range(layers)])


def work(counts: Counts) -> dict[str, Any]:
    outside = {name: flops for name, flops in counts.outside.items() if flops}
    return {
        "forward": counts.forward_macs.tolist(),
        "backward": counts.backward_macs.tolist(),
        "outside": outside,
        "batches": (counts.micro_batches, counts.samples),
    }


def one_optimizer_after_backward(layers: int) -> None:
    model = chain(layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    training(model, update)


def one_a_parameter_in_backward(layers: int) -> None:
    model = chain(layers)
    optimizers = {parameter: torch.optim.SGD([parameter], lr=1e-3) for parameter in model.parameters()}

    def step_one(parameter: Tensor) -> None:
        optimizers[parameter].step()  # type: ignore[index]
        optimizers[parameter].zero_grad()  # type: ignore[index]

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step_one)
    training(model, lambda: None)


def one_a_parameter_in_a_loop(layers: int) -> None:
    model = chain(layers)
    optimizers = [torch.optim.SGD([parameter], lr=1e-3) for parameter in model.parameters()]

    def update() -> None:
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    training(model, update)


@pytest.mark.parametrize("layers", [4, 200])
@pytest.mark.parametrize("job", [one_a_parameter_in_backward, one_a_parameter_in_a_loop])
def test_an_optimizer_a_parameter_is_one_update_of_the_model(
    tmp_path: Path, job: Callable[[int], None], layers: int
) -> None:
    window = {"warmup": 1, "count": True, "timed": 3}
    plain = record(tmp_path / "plain", lambda: one_optimizer_after_backward(layers), **window)
    seen = record(tmp_path / "many", lambda: job(layers), **window)
    counts, steps = seen.of(Counts)[-1], seen.of(Step)[-3:]
    assert work(counts) == work(plain.of(Counts)[-1])
    assert counts.forward_macs.sum() == layers * 4 * 16 * 16
    assert counts.backward_macs.sum() == (2 * layers - 1) * 4 * 16 * 16
    assert [(step.mode, step.iteration) for step in steps] == [(TRAINING, 2), (TRAINING, 3), (TRAINING, 4)]
    assert [(step.micro_batches, step.samples, step.calls.sum()) for step in steps] == [(1, 4, layers + 1)] * 3


def test_counted_iteration_begins_after_the_last_backward(tmp_path: Path) -> None:
    """Without a warm-up the first iteration is counted; new optimizers in it do not restart the window."""
    seen = record(tmp_path, lambda: one_a_parameter_in_backward(6), count=True, timed=2)
    recorded: list[Counts | Step] = [*seen.of(Counts), *seen.of(Step)]
    assert [(one.mode, one.iteration) for one in recorded] == [
        (TRAINING, 0),
        (TRAINING, 1),
        (TRAINING, 2),
    ]
    assert seen.of(Counts)[0].forward_macs.sum() == 6 * 4 * 16 * 16


def test_the_time_of_optimizers_in_backward_is_theirs(tmp_path: Path) -> None:
    def job() -> None:
        model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))
        for parameter in model.parameters():
            optimizer = torch.optim.SGD([parameter], lr=0.01)
            optimizer.register_step_pre_hook(lambda *_: clock.advance_ms(3))
            parameter.register_post_accumulate_grad_hook(lambda _, one=optimizer: one.step())
        training(model, lambda: None)

    seen = record(tmp_path, job, warmup=1, timed=2)
    assert [seen.phases_ms(step) for step in range(2)] == [{"forward": 11, "backward": 22, "optimizer": 6}] * 2


def test_two_models_with_optimizers_in_backward(tmp_path: Path) -> None:
    def job() -> None:
        models = [chain(2), chain(3)]
        for model in models:
            for parameter in model.parameters():
                optimizer = torch.optim.SGD([parameter], lr=1e-3)
                parameter.register_post_accumulate_grad_hook(lambda _, one=optimizer: one.step())
        for _ in range(STEPS):
            for model in models:
                model(torch.ones(4, 16)).sum().backward()

    seen = record(tmp_path, job, warmup=1, count=True, timed=2)
    assert seen.of(Counts)[-1].forward_macs.sum() == 5 * 4 * 16 * 16
    assert [step.calls.sum() for step in seen.of(Step)[-2:]] == [7, 7]


class Outer:
    """Steps its one inner optimizer once for each parameter, as DeepSpeed's ZeRO does for groups."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())
        self.inner = torch.optim.SGD(self.parameters, lr=1e-3)
        self.inner.register_step_pre_hook(lambda *_: clock.advance_ms(3))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.parameters:
            self.inner.param_groups[0]["params"] = [parameter]
            self._step_one()
        clock.advance_ms(1)  # they are gathered

    def _step_one(self) -> None:
        self.inner.step()

    def zero_grad(self) -> None:
        self.inner.param_groups[0]["params"] = self.parameters
        self.inner.zero_grad()


class OuterOfTorch(torch.optim.Optimizer):
    """A torch optimizer whose step runs several others, one of them twice."""

    def __init__(self, model: nn.Module) -> None:
        self.inner = [torch.optim.SGD([parameter], lr=1e-3) for parameter in model.parameters()]
        super().__init__(model.parameters(), {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for inner in (*self.inner, self.inner[0]):
            inner.step()


def outer_job(new: Callable[[nn.Module], Any], model: nn.Module | None = None) -> Callable[[], None]:
    def job() -> None:
        trained = model or chain(5)
        outer = new(trained)

        def update() -> None:
            outer.step()
            outer.zero_grad()

        training(trained, update)

    return job


@pytest.mark.parametrize("kind", [Outer, OuterOfTorch])
def test_an_optimizer_that_steps_others_is_one_update(tmp_path: Path, kind: Callable[[nn.Module], Any]) -> None:
    before = vars(kind)["step"]
    seen = record(tmp_path, outer_job(kind), warmup=2, count=True, timed=3)
    counts, steps = seen.of(Counts), seen.of(Step)
    recorded: list[Counts | Step] = [*counts, *steps]
    assert [(one.mode, one.iteration) for one in recorded] == [(TRAINING, number) for number in range(2, 6)]
    assert counts[0].forward_macs.sum() == 5 * 4 * 16 * 16
    assert counts[0].backward_macs.sum() == 9 * 4 * 16 * 16
    assert [step.calls.sum() for step in steps] == [6, 6, 6]
    if kind is Outer:
        assert vars(kind)["step"] is before


def test_the_time_of_an_outer_step_is_the_optimizers(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))
    seen = record(tmp_path, outer_job(Outer, model), warmup=1, timed=2)
    assert [seen.phases_ms(step) for step in range(2)] == [{"forward": 11, "backward": 22, "optimizer": 2 * 3 + 1}] * 2


def test_outer_step_that_bypasses_its_class(tmp_path: Path) -> None:
    """As when a scheduler has set its own step on the object: each of the two inner steps counts as an update."""

    def new(model: nn.Module) -> Outer:
        outer = Outer(model)
        outer.step = outer.step  # type: ignore[method-assign]
        return outer

    seen = record(tmp_path, outer_job(new, chain(2)), warmup=1, count=True, timed=3)
    assert len(seen.of(Step)) == 3


def test_optimizer_next_to_an_outer_one(tmp_path: Path) -> None:
    def job() -> None:
        model, other = chain(2), chain(1)
        outer, plain = Outer(model), torch.optim.SGD(other.parameters(), lr=1e-3)
        for _ in range(STEPS):
            other(model(torch.ones(4, 16))).sum().backward()
            outer.step()
            plain.step()

    seen = record(tmp_path, job, warmup=1, count=True, timed=3)
    assert seen.of(Counts)[-1].forward_macs.sum() == 3 * 4 * 16 * 16
    assert [step.calls.sum() for step in seen.of(Step)[-3:]] == [5, 5, 5]


def test_torchs_own_helper_of_optimizers_in_backward(tmp_path: Path) -> None:
    case = str(CASES / "zero_counts_optimizer_in_backward.py")
    seen = record(tmp_path, lambda: runpy.run_path(case), warmup=5, count=True, timed=3)
    counts = seen.one(Counts)
    assert counts.forward_macs.sum() == 2 * 8 * 64 * 64
    assert counts.backward_macs.sum() == 3 * 8 * 64 * 64


@pytest.mark.parametrize("layers", ["4", "300"])
def test_the_case_of_an_optimizer_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: str) -> None:
    case = str(CASES / "optimizer_in_backward.py")
    monkeypatch.setattr(sys, "argv", [case, layers, "12"])
    seen: Seen = record(tmp_path, lambda: runpy.run_path(case), warmup=5, count=True, timed=5)
    assert seen.one(Counts).forward_macs.sum() == int(layers) * 4 * 16 * 16
    assert [step.iteration for step in seen.of(Step)] == [6, 7, 8, 9, 10]


def test_a_backward_on_another_thread_is_the_iterations(tmp_path: Path) -> None:
    def job() -> None:
        model = nn.Sequential(Ticking(10, 20), nn.Linear(16, 8, bias=False), Ticking(1, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            loss = model(torch.ones(4, 16)).sum()
            helper = Thread(target=loss.backward)
            helper.start()
            helper.join()
            optimizer.step()
            optimizer.zero_grad()

    seen = record(tmp_path, job, warmup=1, count=True, timed=2)
    counts = seen.one(Counts)
    assert seen.by_name(counts.backward_macs) == {"1": 2 * 4 * 16 * 8}
    assert [seen.phases_ms(step) for step in range(2)] == [{"forward": 11, "backward": 22}] * 2
    assert seen.backward_ms() == {"0": 20, "2": 2}
