"""Tests of the rows that experts in a list get: in Python, and compiled."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from distprof.native import extension
from distprof.probes.expert_rows import PythonRowCounts, RowCounts, row_counts, rows_in

_New = Callable[[int], RowCounts]


def _compiled(experts: int) -> RowCounts:
    if extension.compiled is None:
        pytest.skip("the compiled part could not be compiled")
    return row_counts(experts)


@pytest.fixture(params=[PythonRowCounts, _compiled], ids=["in Python", "compiled"])
def new(request: pytest.FixtureRequest) -> _New:
    """Returns new counts of so many experts."""
    found: _New = request.param
    return found


class _Slow:
    """A slow reader, which keeps what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls.append((args, kwargs))


def _rows(counts: RowCounts) -> list[int]:
    found: list[int] = rows_in(counts.take()).tolist()
    return found


def test_rows_are_added_by_expert_until_they_are_taken(new: _New) -> None:
    counts = new(3)
    counts.begin(False)
    assert not counts.called
    counts.add(0, 5)
    counts.add(2, 1 << 40)
    counts.add(0, 2)
    assert counts.called
    assert _rows(counts) == [7, 0, 1 << 40]
    assert _rows(counts) == [0, 0, 0]
    assert counts.called, "rows that were taken were called, too"
    counts.add(1, 1)
    counts.begin(False)
    assert not counts.called
    assert _rows(counts) == [0, 0, 0]


def test_an_expert_that_the_layer_does_not_have_is_an_error(new: _New) -> None:
    counts = new(2)
    with pytest.raises(IndexError):
        counts.add(2, 1)


def test_the_compiled_reader_adds_the_rows_of_plain_tensors_alone() -> None:
    counts, slow = _compiled(4), _Slow()
    counts.begin(False)
    readers = [counts.reader(place, slow) for place in range(4)]
    readers[1]((torch.zeros(7, 3),), {})
    readers[3]((torch.zeros(0, 3),), {})
    assert counts.called
    assert not slow.calls
    others: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((torch.zeros(2, 3, 4),), {}),
        ((torch.zeros(3),), {}),
        ((torch.zeros(3, 0),), {}),
        ((nn.Parameter(torch.zeros(2, 3)),), {}),
        ((), {"x": torch.zeros(2, 3)}),
        (("text", torch.zeros(2, 3)), {}),
        ((), {}),
        ((torch.zeros(2, 3), torch.ones(2) > 0), {}),  # may select some of the rows
        ((torch.zeros(2, 3),), {"mask": torch.ones(2) > 0}),
    ]
    for args, kwargs in others:
        readers[2](args, kwargs)
    assert [call[0] is args and call[1] is kwargs for call, (args, kwargs) in zip(slow.calls, others, strict=True)]
    assert _rows(counts) == [0, 7, 0, 0]


def test_the_slow_reader_gets_all_calls_where_rows_have_to_be_read() -> None:
    counts, slow = _compiled(1), _Slow()
    read = counts.reader(0, slow)
    counts.begin(True)
    read((torch.zeros(7, 3),), {})
    assert len(slow.calls) == 1
    assert not counts.called
    counts.begin(False)
    read((torch.zeros(7, 3),), {})
    assert len(slow.calls) == 1
    assert _rows(counts) == [7]


def test_what_the_slow_reader_raises_reaches_the_caller() -> None:
    def slow(args: Any, kwargs: Any) -> None:
        raise KeyError("slow")

    with pytest.raises(KeyError, match="slow"):
        _compiled(1).reader(0, slow)((), {})


def test_a_reader_takes_the_arguments_of_a_call_and_nothing_else() -> None:
    read: Any = _compiled(1).reader(0, _Slow())
    wrong: tuple[Any, ...]
    for wrong in ((), ((),), ([], {}), ((), None)):
        with pytest.raises(TypeError):
            read(*wrong)


def test_readers_in_a_cycle_are_freed() -> None:
    slow = _Slow()
    slow.reader = _compiled(1).reader(0, slow)  # type: ignore[attr-defined]
    is_gone = weakref.ref(slow)
    del slow
    gc.collect()
    assert is_gone() is None
