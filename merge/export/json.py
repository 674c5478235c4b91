"""``summary.json``: the report field by field, the schema first, with lines that a diff can compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from distprof.merge.report import NOT_IN_JSON, Report
from distprof.printable import printable_json


def to_json(report: Report) -> str:
    """Returns the report as JSON text, with each field and each row of a table on its own line.

    Keys are in the order of the dataclasses' fields.  Raises ValueError for a number that is not finite.
    """
    values = _plain(report)
    ordered = {"schema": values.pop("schema"), **values}
    return "{\n" + ",\n".join(f"{_compact(key)}: {_value(value)}" for key, value in ordered.items()) + "\n}\n"


def _plain(value: Any) -> Any:
    """Returns dataclasses as dicts, tuples as lists, and keys as strings, in their order."""
    if is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if NOT_IN_JSON not in field.metadata
        }
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _value(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n  " + ",\n  ".join(map(_compact, value)) + "\n]"
    if isinstance(value, dict):
        return "{\n  " + ",\n  ".join(_members(value)) + "\n}"
    return _compact(value)


def _members(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{_compact(key)}: {_compact(value)}"


def _compact(value: Any) -> str:
    return printable_json(json.dumps(value, ensure_ascii=False, allow_nan=False))
