"""Tests of the choice of eager form: with memory for it, on all ranks or on none."""

from __future__ import annotations

import torch
from torch._C._distributed_c10d import HashStore

from distprof.probes.compiled.eager_choice import (
    EagerChoice,
    decide_for_all,
    describe_shortage,
    memory_shortage,
    publish,
)

CPU = torch.device("cpu")
GIB = 2**30


def test_on_cpu_nothing_is_asked_for() -> None:
    assert memory_shortage(CPU) == ""
    assert EagerChoice(True, CPU).decide()
    assert not EagerChoice(False, CPU).decide()


def test_twice_of_what_an_iteration_takes_must_be_left() -> None:
    assert describe_shortage(left=20 * GIB, taken=10 * GIB) == ""
    assert describe_shortage(left=19 * GIB, taken=10 * GIB) == (
        "19.0 GiB of memory are left, and eager form may take 20.0 GiB more"
    )
    assert "two of them" in describe_shortage(left=20 * GIB, taken=0), "not known yet"


def test_a_device_of_unknown_memory_is_refused() -> None:
    choice = EagerChoice(True, torch.device("xpu"))
    choice.publish()
    assert not choice.decide()
    assert choice.refused == "what memory a xpu device has left is not known"


def test_the_first_rank_decides_for_all() -> None:
    store = HashStore()
    for _ in range(3):
        publish(store, "")
    assert [decide_for_all(store, 3) for _ in range(3)] == ["", "", ""]


def test_one_rank_without_memory_decides_for_all() -> None:
    store = HashStore()
    for why in ("", "1.0 GiB of memory are left", ""):
        publish(store, why)
    assert {decide_for_all(store, 3) for _ in range(3)} == {"1.0 GiB of memory are left"}


def test_a_late_rank_does_not_change_the_decision() -> None:
    store = HashStore()
    publish(store, "")
    assert decide_for_all(store, 2) == "not all ranks had said how much memory is left"
    publish(store, "")
    assert decide_for_all(store, 2) == "not all ranks had said how much memory is left"
