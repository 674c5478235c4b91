"""Writes tables as files: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np

from distprof.errors import UsageError
from distprof.merge.export.files import Content
from distprof.merge.export.tables import NAMES
from distprof.merge.export.tables.table import Column, Table, Value
from distprof.printable import on_one_line

#: The folder of the tables, below that of the report.
FOLDER = "tables"
_ROWS_AT_ONCE = 10_000
#: A table may have millions of rows.
MOST_ROWS_IN_MEMORY = 150_000


def csv_names() -> list[str]:
    """Returns the names of all CSV files."""
    return [f"{FOLDER}/{name}.csv" for name in NAMES]


def parquet_names() -> list[str]:
    """Returns the names of all Parquet files."""
    return [f"{FOLDER}/{name}.parquet" for name in NAMES]


def csv_files(tables: Mapping[str, Table]) -> dict[str, Content]:
    """Returns the CSV files of the tables by name: as bytes, and those of more than :data:`MOST_ROWS_IN_MEMORY` rows as
    iterators, which make their pieces as they are read.

    UTF-8, with the names of the columns in the first line.  What was not measured is empty, and the truth of a thing is
    ``true`` or ``false``.  Unprintable characters of names are escaped.  Values of arrays, the times of all modules on
    all ranks, are rounded to whole ns.
    """
    return {
        f"{FOLDER}/{name}.csv": _csv(table) if len(table) > MOST_ROWS_IN_MEMORY else b"".join(_csv(table))
        for name, table in tables.items()
    }


def _csv(table: Table) -> Iterator[bytes]:
    yield (",".join(table.names) + "\n").encode()
    for first in range(0, len(table), _ROWS_AT_ONCE):
        text = io.StringIO(newline="")
        columns = [_cells(column, first) for column in table.columns]
        csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
        yield text.getvalue().encode()


def _cells(column: Column, first: int) -> Sequence[Any]:
    """Returns the cells of some rows, from ``first`` on."""
    values = column.values[first : first + _ROWS_AT_ONCE]
    if isinstance(values, np.ndarray):  # millions of rows
        known = ~np.isnan(values)
        whole = np.rint(np.where(known, values, 0)).astype(np.int64).tolist()
        return (
            whole if known.all() else [value if seen else "" for value, seen in zip(whole, known.tolist(), strict=True)]
        )
    if {*map(type, values)} <= {int, type(None)}:
        return values  # most columns, in a hundredth of the time
    cells = {value: _cell(value) for value in set(values) if isinstance(value, str)}
    return [cells[value] if isinstance(value, str) else _cell(value) for value in values]


def _cell(value: Value) -> Any:
    if isinstance(value, float):
        return "" if isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, bool):
        return "true" if value else "false"
    return on_one_line(value) if isinstance(value, str) else value


def parquet_files(tables: Mapping[str, Table]) -> dict[str, bytes]:
    """Returns the Parquet files of the tables by name; what was not measured is null.

    Raises UsageError if the package ``pyarrow`` is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError("the package pyarrow is missing: pip install 'distprof[parquet]'") from None
    return {f"{FOLDER}/{name}.parquet": _parquet(table, pyarrow, parquet.write_table) for name, table in tables.items()}


def _parquet(table: Table, pyarrow: Any, write_table: Callable[..., None]) -> bytes:
    arrays = [_arrow(column, pyarrow) for column in table.columns]
    file = io.BytesIO()
    write_table(pyarrow.table(arrays, names=list(table.names)), file)
    return file.getvalue()


def _arrow(column: Column, pyarrow: Any) -> Any:
    """Returns the array of a column; one that holds both whole and other numbers is of floats."""
    if isinstance(column.values, np.ndarray):
        return pyarrow.array(column.values, from_pandas=True)
    if any(isinstance(value, float) for value in column.values):
        return pyarrow.array([None if value is None else float(value) for value in column.values])
    return pyarrow.array([on_one_line(value) if isinstance(value, str) else value for value in column.values])
