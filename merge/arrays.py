"""Arrays that the analysis computes with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distprof.records import Array

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
SmallIntArray = npt.NDArray[np.int32]
#: Times of modules, of which a large run has many: exact to 6e-8 of their value.
ShortFloatArray = npt.NDArray[np.float32]


class ArraySums:
    """The sums of arrays that many ranks share: each array is added up once."""

    def __init__(self) -> None:
        # The arrays are kept beside their sums, so that their ids stay theirs.
        self._known: dict[int, tuple[Array, int]] = {}

    def of(self, array: Array) -> int:
        """Returns the sum of an array of whole numbers."""
        if id(array) not in self._known:
            self._known[id(array)] = array, int(array.sum())
        return self._known[id(array)][1]


def as_small(values: IntArray) -> IntArray | SmallIntArray:
    """Returns whole numbers in half the memory, where these can hold them; their sums may need the whole."""
    bounds = np.iinfo(np.int32)
    fits = bounds.min <= values.min(initial=0) and values.max(initial=0) <= bounds.max
    return values.astype(np.int32) if fits else values


def padded(values: Array, rows: int) -> IntArray:
    """Returns ``values`` with one value for each row of the tree: rows that were added later have zeros."""
    full = np.zeros(rows, object if values.dtype == object else np.int64)
    full[: min(rows, len(values))] = values[:rows]
    return full


def padded_table(rows_of_steps: Sequence[Array], rows: int) -> IntArray:
    """Returns (steps, rows) from the values of each step, padded as :func:`padded` does."""
    if all(len(values) == rows for values in rows_of_steps):
        return np.array(rows_of_steps, np.int64)
    return np.stack([padded(values, rows) for values in rows_of_steps])


def combination(columns: Sequence[npt.NDArray[np.integer]]) -> IntArray:
    """Returns a number for each place, from 0, that is equal where all ``columns`` are equal, and ascends with them.

    Numbers are below the number of different combinations.
    """
    key, size = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        place, width = _numbered(column)
        if size * width >= _OVERFLOW:
            key, size = _numbered(_ranked(key))
        key = key * width + place
        size *= width
    return _ranked(key)


def first_of_each(*columns: IntArray) -> BoolArray:
    """Returns by place whether it is the first with its values, in columns that are sorted together."""
    found = np.zeros(len(columns[0]), bool)
    found[:1] = True
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found


def distinct(values: npt.NDArray[np.integer]) -> IntArray:
    """Returns the different values, ascending: numpy's own function imports numpy.ma."""
    ordered: IntArray = np.sort(values, axis=None).astype(np.int64)
    return ordered[first_of_each(ordered)]


def largest_of_each(group: IntArray, values: IntArray, groups: int) -> IntArray:
    """Returns the largest value of each group, from 0; the smallest int64 of a group without values."""
    found = np.full(groups, np.iinfo(np.int64).min)
    np.maximum.at(found, group, values)
    return found


def smallest_of_each(group: IntArray, values: IntArray, groups: int) -> IntArray:
    """Returns the smallest value of each group, from 0; the largest int64 of a group without values."""
    found = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(found, group, values)
    return found


def places_of(numbers: npt.NDArray[np.integer], size: int) -> list[IntArray]:
    """Returns for each number from 0 to ``size`` - 1 its places in ``numbers``, ascending."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.cumsum(np.bincount(numbers, minlength=size))[:-1])


def ragged(first: IntArray, number: IntArray) -> IntArray:
    """Returns first[0], first[0] + 1, ..., ``number[0]`` of them, then as many from ``first[1]`` on, and so on."""
    before = np.cumsum(number) - number
    found: IntArray = np.arange(int(number.sum())) + np.repeat(first - before, number)
    return found


#: A key of several columns is below 2**63; both factors of a product are below this.
_OVERFLOW, _WIDE = 1 << 63, 1 << 31


def _numbered(column: npt.NDArray[np.integer]) -> tuple[IntArray, int]:
    """Returns numbers from 0 in the order of the values, and how many there may be."""
    least = int(column.min(initial=0))
    width = int(column.max(initial=0)) - least + 1
    if width <= _WIDE:
        return column.astype(np.int64) - least, width
    place = _ranked(column)
    return place, int(place.max()) + 1


def _ranked(values: npt.NDArray[np.integer]) -> IntArray:
    """Returns the place of each value among the different ones; where these are few, np.unique's inverse costs more."""
    found: IntArray = np.searchsorted(distinct(values), values).astype(np.int64)
    return found
