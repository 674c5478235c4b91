"""What a field of a record may hold.

The ranges of the int fields are part of their types: a reader may size its tables by what lies within them.  Bulk
numbers are one-dimensional numpy arrays, little-endian in the file, with the dtype given by :func:`bulk`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Bounds:
    """The range of an int field, both ends included.  A reader refuses a record with an int that lies outside."""

    low: int
    high: int


#: No job has more ranks, modules or experts; whatever a reader may size a table by is bounded by it.
LIMIT = 1 << 20
#: No module lies deeper in its tree.
MAX_DEPTH = 256

INT64 = Bounds(-(1 << 63), (1 << 63) - 1)  # of an int without bounds of its own
Natural = Annotated[int, Bounds(0, INT64.high)]  # times, bytes, amounts
Amount = Annotated[int, Bounds(0, 10**40 - 1)]  # work: where nothing runs (meta device), more than 64 bits hold
Index = Annotated[int, Bounds(0, LIMIT - 1)]  # which one of something: a rank, a coordinate, an expert
Size = Annotated[int, Bounds(1, LIMIT)]  # how many there are of something that an Index tells apart
Row = Annotated[int, Bounds(-1, LIMIT - 1)]  # a module of the tree, -1 for none

Array = npt.NDArray[Any]


def bulk(dtype: str, *, amounts: bool = False) -> Any:
    """A field that travels as the little-endian bytes of a one-dimensional array.  A writer may give those bytes.

    ``amounts``: in an array of Python's ints they may be larger, and then travel as a list.
    """
    return field(default_factory=lambda: np.zeros(0, dtype), metadata={"dtype": dtype, "amounts": amounts})


class Bulky:
    """Equality of records that hold arrays: dataclass's own would ask an array for its truth."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)
