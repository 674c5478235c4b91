"""Tests of warm-up iterations: their phases are those of the same iterations when they are timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loops import X, sgd, step, training
from support.recording import MS, Seen, Ticking, clock, record, tick
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from distprof.probes.timing.module_timer import ModuleTimer
from distprof.probes.timing.phases import PhaseClock
from distprof.recorder.windows.capture_plan import MOST_WARMUP, CapturePlan, StepKind
from distprof.records import FORWARD, TRAINING, Step, WarmupStep

WARMUP = 5
WARM, QUIET = StepKind.WARMUP, StepKind.QUIET


class Slow(Dataset[Tensor]):
    """A dataset whose items take 1 ms each."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        clock.advance_ms(1)
        return torch.ones(8)


def model() -> nn.Module:
    return nn.Sequential(Ticking(10, 20), nn.Sequential(Ticking(1, 2)))


def accumulation(steps: int) -> None:
    trained = model()
    optimizer = sgd(trained)
    for _ in range(steps):
        for batch in DataLoader(Slow(), batch_size=4):
            tick(trained(batch), 1, 2).sum().backward()
        clock.advance_ms(7)
        optimizer.step()


def evaluation(steps: int) -> None:
    trained = model()
    optimizer = sgd(trained)
    for _ in range(steps):
        with torch.no_grad():
            for batch in DataLoader(Slow(), batch_size=4):
                trained(batch)
        step(trained, optimizer)


def gan(steps: int) -> None:
    generator, discriminator = model(), model()
    of_generator, of_discriminator = sgd(generator), sgd(discriminator)
    for _ in range(steps):
        with torch.no_grad():
            fake = generator(X)
        (discriminator(X) + discriminator(fake)).sum().backward()
        of_discriminator.step()
        discriminator(generator(X)).sum().backward()
        of_generator.step()


def recomputed(steps: int) -> None:
    trained = model()
    optimizer = sgd(trained)
    for _ in range(steps):
        y: Any = checkpoint(trained, X, use_reentrant=False)
        y.sum().backward()
        optimizer.step()


def in_backward(steps: int) -> None:
    trained = model()
    for parameter in trained.parameters():
        optimizer = sgd(trained)
        optimizer.param_groups[0]["params"] = [parameter]
        parameter.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: optimizer.step())
    for _ in range(steps):
        trained(X).sum().backward()


def closures(steps: int) -> None:
    trained = model()
    optimizer = torch.optim.LBFGS(trained.parameters(), max_iter=2, tolerance_grad=-1, tolerance_change=-1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = trained(X).sum() ** 2
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)


def with_a_loss_module(steps: int) -> None:
    class Loss(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return tick(x, 4, 0).sum()

    trained, loss = model(), Loss()
    optimizer = sgd(trained)
    for _ in range(steps):
        loss(trained(X)).backward()
        optimizer.step()


JOBS = (accumulation, evaluation, gan, recomputed, in_backward, closures, with_a_loss_module)


def times(recorded: Step | WarmupStep) -> dict[str, int]:
    assert sum(recorded.phases_ns.values()) == recorded.duration_ns
    return recorded.phases_ns


@pytest.mark.parametrize("job", JOBS)
def test_phases_are_those_of_timed_iterations(tmp_path: Path, job: Callable[[int], None]) -> None:
    found = record(tmp_path, lambda: job(WARMUP + 2), warmup=WARMUP, timed=2)
    (expected, same) = map(times, found.of(Step))
    assert expected == same and sum(expected.values()) > 0
    warm = {one.iteration: one for one in found.of(WarmupStep)}  # the later record of an iteration is valid
    assert list(warm) == list(range(WARMUP))
    for number in range(2, WARMUP):  # the first ones may begin late: with the first call of a model
        assert (times(warm[number]), warm[number].mode) == (expected, TRAINING)
    assert sorted(one.start_wall_ns for one in warm.values()) == [one.start_wall_ns for one in warm.values()]


def test_the_first_iteration_begins_with_the_first_call(tmp_path: Path) -> None:
    found = record(tmp_path, lambda: accumulation(3), warmup=2, timed=1)
    first, second = map(times, found.of(WarmupStep))
    assert first == {**second, "data": 4 * MS}, "the first batch came before the first call"


def test_a_short_script_leaves_its_warm_up(tmp_path: Path) -> None:
    found = record(tmp_path, training(3), warmup=5, count=True, timed=10)
    assert [one.iteration for one in found.of(WarmupStep)] == [0, 1, 2] and not found.of(Step)
    assert {one.restarts for one in found.of(WarmupStep)} == {0}


def test_iterations_that_were_none_are_left_by_their_number_of_restarts(tmp_path: Path) -> None:
    """The first step of the second optimizer of a GAN shows that iterations are longer than it seemed."""
    found = record(tmp_path, lambda: gan(4), warmup=5, timed=1)
    last = max(one.restarts for one in found.of(WarmupStep))
    valid = [one.iteration for one in found.of(WarmupStep) if one.restarts == last]
    assert last > 0 and valid == [1, 2, 3]


def test_forwards_are_iterations_where_nothing_trains(tmp_path: Path) -> None:
    def job() -> None:
        served = model()
        with torch.no_grad():
            for _ in range(6):
                served(X)
                clock.advance_ms(5)

    found = record(tmp_path, job, warmup=4, timed=2)
    warm = found.of(WarmupStep)
    assert [(one.iteration, one.mode) for one in warm] == [(number, FORWARD) for number in range(4)]
    assert [times(one) for one in warm[1:]] == [times(found.of(Step)[0])] * 3


def test_a_long_warm_up_is_quiet_after_its_first_iterations(tmp_path: Path) -> None:
    calls: list[bool] = []

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(getattr(nn.Module.__call__, "patch", None) is not None)
            return x

    job = training(MOST_WARMUP + 4, nn.Sequential(Ticking(1, 1), Looks()))
    found = record(tmp_path, job, warmup=MOST_WARMUP + 3, timed=1)
    assert [one.iteration for one in found.of(WarmupStep)] == list(range(MOST_WARMUP))
    assert calls == [True] * MOST_WARMUP + [False] * 3 + [True]


@pytest.mark.parametrize(("plan", "kind"), [(CapturePlan(9, 1, 2), WARM), (CapturePlan(9, 1, 2, number=1), QUIET)])
def test_only_the_first_window_has_a_warm_up(plan: CapturePlan, kind: StepKind) -> None:
    assert {plan.kind(iteration) for iteration in range(9)} == {kind}


def test_a_window_without_warm_up_has_none(tmp_path: Path) -> None:
    assert not record(tmp_path, training(4), warmup=0, timed=2).of(WarmupStep)


def test_only_calls_from_outside_of_models_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred modules take two timestamps, as one does."""
    monkeypatch.setattr(ModuleTimer, "enter", lambda *_: pytest.fail("a warm-up iteration looks into its model"))
    switches: list[str] = []
    entered = PhaseClock.enter

    def enter(clock: PhaseClock, phase: str) -> None:
        switches.append(phase)
        entered(clock, phase)

    monkeypatch.setattr(PhaseClock, "enter", enter)
    deep = nn.Sequential(*(Ticking(1, 1) for _ in range(100)))
    record(tmp_path, training(3, deep), warmup=5, timed=1)
    assert switches == ["forward", "backward", "optimizer"] * 3


def test_exceptions_of_a_model_end_its_phase(tmp_path: Path) -> None:
    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = Ticking(2, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            y: Tensor = self.inner(x)
            if self.calls % 2 == 0:
                raise ValueError("now and then")
            return y

    def job() -> None:
        trained = Raises()
        optimizer = sgd(trained)
        for _ in range(3):
            step(trained, optimizer)
            with pytest.raises(ValueError, match="now and then"):
                trained(X)
            clock.advance_ms(6)

    found: Seen = record(tmp_path, job, warmup=5, timed=1)
    second = times(found.of(WarmupStep)[1])
    assert (second["forward"], second["backward"], second["optimizer"]) == (4 * MS, 1 * MS, 3 * MS)


def test_the_patches_go_with_the_warm_up(tmp_path: Path) -> None:
    opened: list[bool] = []

    def job() -> None:
        training(8)()
        opened.append(hasattr(nn.Module.__call__, "patch"))

    record(tmp_path, job, warmup=2, timed=2)
    assert opened == [False]
