"""Generates docs/REPORT.md from the report's dataclasses and tables: ``python tools/report_page.py``."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from distprof.merge.export.tables import all_tables
from distprof.merge.export.tables.table import Table
from distprof.merge.report import NOT_IN_JSON, Report, TopologyInfo
from distprof.records import AXES

PAGE = Path(__file__).parent.parent / "docs" / "REPORT.md"
WIDTH = 120

HEAD = """\
# The report, field by field

`make docs` writes this page from the dataclasses in `merge/report/` and from the columns in `merge/export/tables/`.

`distprof merge RUN` writes into `RUN/report/`:

| file | what |
|---|---|
| `summary.txt` | the report as text, its first page first |
| `summary.json` | all of it as data: the fields below |
| `tables/*.csv` | its tables: one row for each thing; `--parquet` writes them as `tables/*.parquet` too |
| `report.html` | all of it as one page for the browser, which needs no other file |
| `plots/` | its pictures |

**Names have units.** `_ns` are nanoseconds, `_bytes` bytes, `_macs` and `_flops` amounts of work, `_per_second` rates,
`_ppm` millionths. Shares and utilizations are of 1. Work, times and memory are those of one iteration unless noted.

**What was not measured** is `null` in JSON and empty in a table, never 0; `summary.unavailable` has the reason by the
name of the field. Whole numbers are written without a fraction.

In Python, `distprof.load(RUN)` returns the same without reading any of these files, and without torch:

```python
report = distprof.load("runs/demo")
report.report.summary.iterations.median_ns   # the dataclasses, with the fields below
report.ranks                                 # the tables as pandas data frames: pip install 'distprof[pandas]'
report.table("ranks").rows()                 # and as dicts, without pandas
```
"""


def page() -> str:
    """Returns the text of the page."""
    return "\n".join([HEAD, *_json_part(), *_table_part()]).rstrip() + "\n"


def _json_part() -> Iterator[str]:
    yield "## summary.json\n"
    yield "A field of `A or null` has no value where nothing was measured. Words in code are the sections below.\n"
    for kind in _kinds(Report):
        yield f"### {kind.__name__}\n"
        yield from _text(kind)
        yield "| field | type | what |"
        yield "|---|---|---|"
        hints, classes = typing.get_type_hints(kind), [one for one in kind.__mro__ if is_dataclass(one)]
        comments = {name: text for one in classes for name, text in _comments(one).items()}
        for field in fields(kind):
            if NOT_IN_JSON not in field.metadata:
                yield f"| `{field.name}` | {_type(hints[field.name])} | {_cell(comments.get(field.name, ''))} |"
        yield ""


def _kinds(kind: Any, seen: dict[Any, None] | None = None) -> list[Any]:
    """Returns the dataclasses that are reached from ``kind``, each once, in the order of the fields."""
    seen = {} if seen is None else seen
    seen[kind] = None
    for field in fields(kind):
        for inner in _dataclasses_in(typing.get_type_hints(kind)[field.name]):
            if inner not in seen and NOT_IN_JSON not in field.metadata:
                _kinds(inner, seen)
    return list(seen)


def _dataclasses_in(hint: Any) -> Iterator[Any]:
    if is_dataclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _dataclasses_in(argument)


def _text(kind: Any) -> Iterator[str]:
    for paragraph in inspect.cleandoc(kind.__doc__ or "").split("\n\n"):
        plain = " ".join(paragraph.split()).replace("``", "`")
        for role in ("class", "data", "func", "mod"):
            plain = plain.replace(f":{role}:`~", "`").replace(f":{role}:`", "`")
        if not plain.startswith(f"{kind.__name__}("):  # what dataclass makes where there is no docstring
            yield textwrap.fill(plain, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if origin is tuple:
        return f"list of {_many(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} -> {_type(arguments[1])}"
    return f"`{hint.__name__}`" if isinstance(hint, type) and is_dataclass(hint) else _WORDS[hint]


def _many(hint: Any) -> str:
    return f"({_type(hint)})" if typing.get_args(hint) else _type(hint)


def _comments(kind: Any) -> dict[str, str]:
    """Returns the comments on the lines of each field."""
    source = textwrap.dedent(inspect.getsource(kind))
    on_line = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    return {
        node.target.id: " ".join(on_line[line] for line in _lines(node) if line in on_line)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _lines(node: ast.AST) -> range:
    assert isinstance(node, ast.AnnAssign) and node.end_lineno is not None
    return range(node.lineno, node.end_lineno + 1)


def _table_part() -> Iterator[str]:
    yield "## Tables\n"
    yield "Each file of `report/tables/` has one line with the names of the columns, then one for each row.\n"
    empty: Report = _empty(Report)
    one_of_each = replace(empty.topology, sizes=dict.fromkeys((*AXES, "mp"), 1))
    assert isinstance(one_of_each, TopologyInfo)
    for table in all_tables(replace(empty, topology=one_of_each)).values():
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"### {table.name}\n"
    yield f"A row is {table.text}.\n"
    yield "| column | what |"
    yield "|---|---|"
    for column in table.columns:
        yield f"| `{column.name}` | {_cell(column.text)} |"
    yield ""


def _empty(hint: Any) -> Any:
    """Returns a value of the type without anything in it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return None
    if origin in (tuple, dict):
        return origin()
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        required = {field.name: hints[field.name] for field in fields(hint) if NOT_IN_JSON not in field.metadata}
        return typing.cast(Any, hint)(**{name: _empty(kind) for name, kind in required.items()})
    return hint()


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
