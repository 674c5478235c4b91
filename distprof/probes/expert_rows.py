"""Counts the rows that each expert in a list gets, from the shapes of its inputs alone."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from distprof.native import extension
from distprof.records import Array

#: Reads the args and kwargs of a call.
Reader = Callable[[tuple[Any, ...], dict[str, Any]], None]


class RowCounts(Protocol):
    """Counts the rows that each expert of one layer gets."""

    #: Whether an expert was called since :meth:`begin`.
    called: bool

    def begin(self, by_value: bool) -> None:
        """Begins a step.  ``by_value``: the rows have to be read, so slow readers get all calls."""

    def reader(self, place: int, slow: Reader) -> Reader:
        """Returns a function to be called before the expert at this place runs: it adds the rows of a plain tensor of
        two dimensions that is the only argument, and passes all other calls to ``slow``.
        """

    def add(self, place: int, rows: int) -> None:
        """Adds a call of the expert at this place."""

    def take(self) -> bytes:
        """Returns the rows so far by expert, as int64; the next ones are counted from 0."""


class PythonRowCounts:
    """Passes all calls to slow readers; :mod:`distprof.native._fast_path` reads most shapes itself."""

    def __init__(self, experts: int) -> None:
        self.called = False
        self._rows = array("q", [0] * experts)

    def begin(self, by_value: bool) -> None:
        self.called = False
        self.take()

    def reader(self, place: int, slow: Reader) -> Reader:
        return slow

    def add(self, place: int, rows: int) -> None:
        self._rows[place] += rows
        self.called = True

    def take(self) -> bytes:
        rows = self._rows.tobytes()
        self._rows = array("q", bytes(len(rows)))
        return rows


def tensors_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Returns the tensors among the arguments of a call, but for those without dimensions.

    The first one has the tokens that a router or an expert gets.
    """
    return [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.dim()]


def rows_of_call(tensors: Sequence[torch.Tensor]) -> int:
    """Returns the tokens in the first of the tensors of a call: all its dimensions but the last are tokens.

    There are 0 without a tensor.
    """
    if not tensors:
        return 0
    shape = tensors[0].shape
    return tensors[0].numel() // shape[-1] if shape[-1] else int(shape[0])


def row_counts(experts: int) -> RowCounts:
    """Returns counts of so many experts, compiled where possible."""
    if extension.compiled is None:
        return PythonRowCounts(experts)
    counts: RowCounts = extension.compiled.RowCounts(experts, torch.Tensor)
    return counts


def rows_in(taken: bytes) -> Array:
    """Returns what :meth:`RowCounts.take` gave as an array (experts,) of int64, which cannot be written."""
    return np.frombuffer(taken, np.int64)
