"""The types of the fields of records.

The ranges of int fields are part of their types, so that a reader can size its tables by them.  Bulk
numbers are one-dimensional numpy arrays, little-endian in the file, with the dtype given by :func:`bulk`.
"""

from __future__ import annotations

from dataclasses import field, fields
from typing import Annotated, Any

import numpy as np

from distprof.plain import dataclass


@dataclass(frozen=True)
class Bounds:
    """The range of an int field, both ends included.  A reader refuses a record with an int outside of it."""

    low: int
    high: int


#: No job has more ranks, modules or experts.  It bounds every value by which a reader sizes a table.
LIMIT = 1 << 20
#: No module lies deeper in its tree.
MAX_DEPTH = 256

INT64 = Bounds(-(1 << 63), (1 << 63) - 1)  # an int without other bounds
Natural = Annotated[int, Bounds(0, INT64.high)]  # times, bytes, amounts
Amount = Annotated[int, Bounds(0, 10**40 - 1)]  # work: it may exceed 64 bits where nothing is computed (meta device)
Index = Annotated[int, Bounds(0, LIMIT - 1)]  # the number of a rank, a coordinate, an expert
Size = Annotated[int, Bounds(1, LIMIT)]  # the number of ranks, of coordinates, of experts
Row = Annotated[int, Bounds(-1, LIMIT - 1)]  # a module of the tree, -1 for none

Array = np.ndarray[Any, np.dtype[Any]]  # as numpy.typing's NDArray, whose import takes 5 ms in each rank


def bulk(dtype: str, *, amounts: bool = False, rounded: bool = False) -> Any:
    """A field that is written as the little-endian bytes of a one-dimensional array.

    ``amounts``: an array of Python ints may hold larger values, and is then written as a list.  ``rounded``: whole
    numbers are written as floats of 4 bytes, exact below 2**24 (16.7 ms) and else to 6e-8 of their value.
    """
    metadata = {"dtype": dtype, "amounts": amounts, "rounded": rounded}
    return field(default_factory=lambda: np.zeros(0, dtype), metadata=metadata)


class Bulky:
    """Equality of records with arrays: the equality of dataclasses fails on arrays."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]
        return all(_are_equal(one, theirs) for one, theirs in pairs)

    __hash__ = None  # type: ignore[assignment]


def _are_equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)
