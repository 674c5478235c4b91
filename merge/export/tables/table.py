"""A table as plain data, by columns, and how it is made from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from distprof.merge.report import Report
from distprof.plain import dataclass

Value = str | int | float | bool | None
Row = TypeVar("Row")


@dataclass(frozen=True, eq=False)
class Column:
    """The values of all rows; None, or NaN in an array, is a value that was not measured."""

    name: str  # ends with the unit
    text: str  # what it holds
    values: Sequence[Value] | npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Table:
    """One row for each thing; all columns have one value for each row."""

    name: str
    text: str  # what a row is
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def rows(self) -> list[dict[str, Value]]:
        """Returns each row as a dict, by the names of the columns."""
        columns = [_plain(column) for column in self.columns]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(self.columns[0].values)


def _plain(column: Column) -> Sequence[Value]:
    """Returns the values with None for NaN."""
    if not isinstance(column.values, np.ndarray):
        return column.values
    return [None if np.isnan(value) else value for value in column.values.tolist()]


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Maker(Generic[Row]):
    """Makes one column: ``pick`` returns the value of a row, and by default reads the attribute ``name``."""

    name: str
    text: str
    pick: Callable[[Row], Value] | None = field(default=None, repr=False)
    counts: bool = False  # whole numbers are integers, also where they are means

    def column(self, rows: Sequence[Row]) -> Column:
        """Returns the column of ``rows``."""
        read: Callable[[Row], Any] = self.pick or (lambda row: getattr(row, self.name))
        values = [read(row) for row in rows]
        return Column(self.name, self.text, list(map(_integer, values)) if self.counts else values)


def make_table(name: str, text: str, rows: Iterable[Row], makers: Iterable[Maker[Row]]) -> Table:
    """Returns the table of ``rows`` with one column for each of ``makers``."""
    every = list(rows)
    return Table(name, text, tuple(maker.column(every) for maker in makers))


@dataclass(frozen=True)
class RowTable(Generic[Row]):
    """Makes a table whose columns do not depend on the report; ``rows`` returns what each row is made from."""

    name: str
    text: str
    rows: Callable[[Report], Iterable[Row]]
    makers: Sequence[Maker[Row]]

    def make(self, report: Report) -> Table:
        """Returns the table of a report."""
        return make_table(self.name, self.text, self.rows(report), self.makers)
