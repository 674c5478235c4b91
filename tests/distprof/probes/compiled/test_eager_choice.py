"""Eager form, if there is memory for it: on all ranks or on none."""

from __future__ import annotations

import torch
from torch._C._distributed_c10d import HashStore

from distprof.probes.compiled.eager_choice import EagerChoice, agreed, lacking, shortage, tell

CPU = torch.device("cpu")
GIB = 2**30


def test_on_cpu_nothing_is_asked_for() -> None:
    assert lacking(CPU) == ""
    assert EagerChoice(True, CPU).decide()
    assert not EagerChoice(False, CPU).decide()


def test_twice_of_what_an_iteration_takes_must_be_left() -> None:
    assert shortage(left=20 * GIB, taken=10 * GIB) == ""
    assert shortage(left=19 * GIB, taken=10 * GIB) == (
        "19.0 GiB of memory are left, and eager form may take 20.0 GiB more"
    )
    assert "two of them" in shortage(left=20 * GIB, taken=0), "not known yet"


def test_a_device_that_tells_nothing_of_its_memory_is_short_of_it() -> None:
    choice = EagerChoice(True, torch.device("xpu"))
    choice.say()
    assert not choice.decide()
    assert choice.refused == "what memory a xpu device has left is not known"


def test_all_ranks_do_as_the_first_one_finds() -> None:
    store = HashStore()
    for _ in range(3):
        tell(store, "")
    assert [agreed(store, 3) for _ in range(3)] == ["", "", ""]


def test_one_rank_without_room_is_enough() -> None:
    store = HashStore()
    for why in ("", "1.0 GiB of memory are left", ""):
        tell(store, why)
    assert {agreed(store, 3) for _ in range(3)} == {"1.0 GiB of memory are left"}


def test_who_comes_late_does_not_change_what_others_have_acted_on() -> None:
    store = HashStore()
    tell(store, "")
    assert agreed(store, 2) == "not all ranks had said how much memory is left"
    tell(store, "")
    assert agreed(store, 2) == "not all ranks had said how much memory is left"
