"""Tests of the compiler's stance during a counted step, which is always restored."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from support.recording import record
from torch._dynamo import eval_frame

from distprof.clock import SystemClock
from distprof.probes.compiled.stance import AS_COMPILED, EAGER, Stance
from distprof.records import Counts

CASE = Path(__file__).parents[3] / "cases" / "stances_of_the_script.py"


def current() -> str:
    return str(eval_frame._stance.stance)


@pytest.mark.parametrize("name", [AS_COMPILED, EAGER])
def test_the_stance_is_set_for_a_step(name: str) -> None:
    stance = Stance(name, lambda: True)
    stance.acquire()
    assert current() == name
    stance.pause()
    assert current() == "default"
    stance.resume()
    assert current() == name
    stance.release()
    assert current() == "default"
    stance.resume()
    assert current() == "default"


def test_the_users_stance_is_restored() -> None:
    with torch.compiler.set_stance("fail_on_recompile"):
        stance = Stance(EAGER, lambda: True)
        stance.acquire()
        stance.release()
        assert current() == "fail_on_recompile"


def test_a_stance_that_the_user_sets_meanwhile_stays() -> None:
    stance = Stance(EAGER, lambda: True)
    stance.acquire()
    with torch.compiler.set_stance("fail_on_recompile"):
        stance.release()
        assert current() == "fail_on_recompile"
    torch.compiler.set_stance("default")


class Waits:
    """A clock in seconds that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_is_given_up_when_the_step_does_not_end() -> None:
    clock = Waits()
    stance = Stance(EAGER, lambda: True, deadline_s=10, now=clock)
    stance.acquire()
    clock.now = 9
    stance.give_up_if_late()
    assert current() == EAGER
    clock.now = 11
    stance.give_up_if_late()
    assert current() == "default"
    stance.resume()
    assert current() == "default"
    stance.release()


def test_it_is_not_given_up_in_the_middle_of_a_forward() -> None:
    clock, in_the_middle = Waits(), [True]
    stance = Stance(EAGER, lambda: not in_the_middle, deadline_s=10, now=clock)
    stance.acquire()
    clock.now = 11
    stance.give_up_if_late()
    assert current() == EAGER
    in_the_middle.clear()
    stance.give_up_if_late()
    assert current() == "default"
    stance.release()


@pytest.mark.parametrize("name", ["force_eager", "fail_on_recompile"])
def test_stance_of_the_script_holds_in_the_counted_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(CASE), name])
    recorded: dict[str, Any] = {}
    seen = record(
        tmp_path,
        lambda: recorded.update(runpy.run_path(str(CASE))),
        warmup=3,
        count=True,
        timed=2,
        clock=SystemClock(),
    )
    torch._dynamo.reset()
    plain = runpy.run_path(str(CASE))
    assert recorded["losses"] == plain["losses"]
    assert (recorded["ran"], recorded["refused"]) == (plain["ran"], plain["refused"])
    assert plain["ran"] == ([0] if name == "force_eager" else [*range(10)])
    assert plain["refused"] == ([] if name == "force_eager" else [*range(1, 10)])
    assert sum(seen.one(Counts).forward_macs) == 4 * 8 * 4
