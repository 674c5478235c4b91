"""Tables as CSV and Parquet: other programs read back what the report holds."""

from __future__ import annotations

import csv
import io
import sys

import numpy as np
import pytest
from support.reports import report_of

from distprof.errors import UsageError
from distprof.merge.export.table_files import csv_files, csv_names, parquet_files, parquet_names
from distprof.merge.export.tables import all_tables
from distprof.merge.export.tables.table import Column, Table

TABLE = Table(
    "it",
    "a thing",
    (
        Column("name", "its name", ["plain", 'with "quotes", and a comma', "a\nline\x1b[31m", None]),
        Column("time_ns", "its time", np.array([1.0, 2.25, np.nan, 4e15])),
        Column("seen", "whether", [True, False, True, None]),
    ),
)
CSV = """name,time_ns,seen
plain,1,true
"with ""quotes"", and a comma",2,false
a\\nline\\x1b[31m,,true
,4000000000000000,
"""


def written(table: Table) -> str:
    content = csv_files({table.name: table})[f"tables/{table.name}.csv"]
    assert isinstance(content, bytes)
    return content.decode()


def test_values_are_plain_and_what_was_not_measured_is_empty() -> None:
    assert written(TABLE) == CSV


def test_a_large_table_has_all_rows_in_order() -> None:
    numbers = np.arange(25_001, dtype=np.float32)
    lines = written(Table("large", "a number", (Column("number", "it", numbers),))).splitlines()
    assert lines == ["number", *map(str, range(25_001))]


def test_all_tables_of_a_report_are_read_back() -> None:
    tables = all_tables(report_of(dp=4, tp=2, ep=2))
    files = csv_files(tables)
    assert list(files) == csv_names()
    for table, content in zip(tables.values(), files.values(), strict=True):
        assert isinstance(content, bytes)
        header, *rows = csv.reader(io.StringIO(content.decode()))
        assert (tuple(header), len(rows)) == (table.names, len(table))
        assert {len(row) for row in rows} <= {len(header)}


def test_parquet_holds_the_same_with_its_types() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    files = parquet_files({"it": TABLE})
    read = parquet.read_table(io.BytesIO(files["tables/it.parquet"]))
    assert read.to_pydict() == {
        "name": ["plain", 'with "quotes", and a comma', "a\\nline\\x1b[31m", None],
        "time_ns": [1.0, 2.25, None, 4e15],
        "seen": [True, False, True, None],
    }
    assert list(parquet_files(all_tables(report_of(dp=2)))) == parquet_names()


def test_without_pyarrow_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pyarrow is missing: pip install 'distprof\[parquet\]'"):
        parquet_files({"it": TABLE})
