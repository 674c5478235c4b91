"""The shortcut in C does what the module timer does: the tests of timing run on both, and here is what is its own."""

from __future__ import annotations

import gc
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import record, train
from torch import nn

from distprof.probes import shortcut
from distprof.probes.timing import ModuleTimer

X = torch.ones(4, 8)
needed = pytest.mark.skipif(shortcut.compiled is None, reason="the shortcut could not be compiled")


def test_it_is_compiled_where_it_can_be() -> None:
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    can_be = shutil.which(sysconfig.get_config_var("CC").split()[0]) is not None and headers.exists()
    assert (shortcut.compiled is not None) == can_be


class Counting(list[str]):
    """Names of the calls that were left to the module timer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("enter", "leave", "meet_input", "meet_output"):
            monkeypatch.setattr(ModuleTimer, name, self._counted(name, getattr(ModuleTimer, name)))

    def _counted(self, name: str, original: Any) -> Any:
        def call(*args: Any) -> Any:
            self.append(name)
            return original(*args)

        return call


@needed
def test_most_calls_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the root's, whose input needs no gradient, and that of the module that is given the same."""
    model = nn.Sequential(nn.Linear(8, 8), *(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(20)))
    left = Counting(monkeypatch)
    seen = record(tmp_path, lambda: train(model, X, steps=3), timed=3)
    assert sum(seen.calls().values()) == len(list(model.modules())) == 62
    once = ["enter", "meet_input", "meet_input", "leave", "meet_output"]
    assert left == [*once, *once, *once]


class Strange(nn.Module):
    """Given and returns what the shortcut does not know."""

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return x * 2, [more["y"] * 3]


class Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.strange, self.act, self.last = nn.Linear(8, 8), Strange(), nn.ReLU(), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        one, (other,) = self.strange(y.detach(), more={"y": y})
        named: torch.Tensor = self.last(input=self.act(one + other))
        return named


@needed
def test_what_it_does_not_know_is_left_to_the_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = Counting(monkeypatch)
    record(tmp_path, lambda: train(Caller(), X))
    assert left.count("enter") == left.count("leave") == 1
    assert left.count("meet_input") == 4  # the root's, of no gradient, the strange one's, by name
    assert left.count("meet_output") == 2  # the root's, the strange one's


@needed
def test_it_says_what_is_wrong() -> None:
    parts: dict[str, Any] = dict.fromkeys(
        ("timer", "row_of", "stack", "entered", "owners", "stamp", "now", "hooked", "in_backward", "special", "hooks")
    )
    with pytest.raises(TypeError):
        shortcut.compiled.Shortcut(**parts)
    parts |= {"carrier": X, "plain": torch.Tensor, "is_grad_enabled": torch.is_grad_enabled}
    with pytest.raises(TypeError, match="works on a dict, lists and a set"):
        shortcut.compiled.Shortcut(**parts)
    parts |= {"row_of": {}, "special": set()}
    parts |= {name: [] for name in ("stack", "entered", "owners", "hooked", "in_backward")}
    made = shortcut.compiled.Shortcut(**parts)
    entering: list[tuple[Any, ...]] = [(), (1, 2), (1, 2, 3), (1, (), {}, 4)]
    for given in entering:
        with pytest.raises(TypeError, match="enter"):
            made.enter(*given)
    leaving: list[tuple[Any, ...]] = [(), (1,), (1, 2, 3)]
    for given in leaving:
        with pytest.raises(TypeError, match="leave"):
            made.leave(*given)
    with pytest.raises(TypeError):
        shortcut.compiled.Hook(1, stamp=None, now=None, owners=[], in_backward=(), failed=None)


@needed
def test_a_hook_that_fails_tells_and_lets_backward_go_on() -> None:
    told: list[BaseException] = []
    hook = shortcut.compiled.Hook(1, stamp=None, now=lambda: 5, owners=[], in_backward=[0], failed=told.append)
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    y.register_hook(hook)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2]
    (error,) = told
    assert isinstance(error, TypeError)  # None cannot be called


@needed
@pytest.mark.parametrize("broken", ["stamp", "now", "hooks", "hooked", "is_grad_enabled", "carrier"])
def test_what_fails_in_it_ends_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], broken: str
) -> None:
    """Whatever it meets: the job goes on, and one line says so."""

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    class Broken(dict[int, Any]):
        __missing__ = fails

    instead = {"hooks": Broken(), "hooked": [], "carrier": object()}
    original = shortcut.compiled.Shortcut

    class Module:
        @staticmethod
        def Shortcut(**parts: Any) -> Any:
            return original(**{**parts, broken: instead.get(broken, fails)})

    monkeypatch.setattr(shortcut, "compiled", Module)
    record(tmp_path, lambda: train(Caller(), X, steps=3), timed=3)
    (line,) = capfd.readouterr().err.splitlines()
    assert "the job goes on" in line and "ing a module" in line


@needed
def test_it_keeps_nothing(tmp_path: Path) -> None:
    """Neither itself, in the circle of which the timer is a part, nor what modules were given."""
    seen: list[Any] = []

    class Giving(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(id(x))
            return x * 2

    def job() -> None:
        train(nn.Sequential(nn.Linear(8, 8), Giving(), nn.Linear(8, 8)), X, steps=4)

    def living() -> int:
        gc.collect()
        kinds = (shortcut.compiled.Shortcut, Giving, ModuleTimer)
        return sum(type(thing) in kinds for thing in gc.get_objects())

    others = living()
    record(tmp_path, job, timed=4)
    assert len(seen) == 4 and living() == others


@needed
def test_counts_of_references_stay_as_they_are(tmp_path: Path) -> None:
    model = Caller()
    shared: list[Any] = [torch.Tensor, torch.is_grad_enabled, None, True, model, *model.children(), 1, 2, 3]
    record(tmp_path / "1", lambda: train(model, X, steps=2), timed=2)
    gc.collect()
    before = [sys.getrefcount(thing) for thing in shared]
    record(tmp_path / "2", lambda: train(model, X, steps=1_000), timed=1_000)
    gc.collect()
    assert all(abs(sys.getrefcount(thing) - count) < 900 for thing, count in zip(shared, before, strict=True))
