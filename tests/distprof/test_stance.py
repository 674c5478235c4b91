"""The compiler's stance during a counted step, which is always given back."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch._dynamo import eval_frame

from distprof.probes.stance import AS_COMPILED, EAGER, Stance


def current() -> str:
    return str(eval_frame._stance.stance)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


@pytest.mark.parametrize("name", [AS_COMPILED, EAGER])
def test_it_holds_for_a_step(name: str) -> None:
    stance = Stance(name, lambda: True)
    stance.take()
    assert current() == name
    stance.pause()
    assert current() == "default"
    stance.resume()
    assert current() == name
    stance.leave()
    assert current() == "default"
    stance.resume()
    assert current() == "default"


def test_the_users_own_is_put_back() -> None:
    with torch.compiler.set_stance("fail_on_recompile"):
        stance = Stance(EAGER, lambda: True)
        stance.take()
        stance.leave()
        assert current() == "fail_on_recompile"


def test_one_that_the_user_sets_meanwhile_stays() -> None:
    stance = Stance(EAGER, lambda: True)
    stance.take()
    with torch.compiler.set_stance("fail_on_recompile"):
        stance.leave()
        assert current() == "fail_on_recompile"
    torch.compiler.set_stance("default")


def test_it_is_given_up_when_the_step_does_not_end() -> None:
    stance = Stance(EAGER, lambda: True, deadline_s=0.05)
    stance.take()
    until(lambda: current() == "default")
    stance.resume()
    assert current() == "default"
    stance.leave()


def test_it_is_not_given_up_in_the_middle_of_a_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distprof.probes.stance._SOON_S", 0.02)
    asked: list[int] = []

    def agrees() -> bool:
        asked.append(1)
        return len(asked) > 2

    stance = Stance(EAGER, agrees, deadline_s=0.02)
    stance.take()
    until(lambda: len(asked) == 3 and current() == "default")
    stance.leave()
