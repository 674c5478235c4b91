"""``summary.json``: the report field by field, the schema first, with lines that a diff can compare."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Hashable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from distprof.errors import DataError
from distprof.merge.report import NOT_IN_JSON, REPORT_SCHEMA, Report
from distprof.printable import printable_json


def to_json(report: Report) -> str:
    """Returns the report as JSON text, with each field and each row of a table on its own line.

    Keys are in the order of the dataclasses' fields.  Whole numbers have no fraction: counts are integers, also where
    they are means.  Raises ValueError for a number that is not finite.
    """
    values = plain(report)
    ordered = {"schema": values.pop("schema"), **values}
    return "{\n" + ",\n".join(f"{_compact(key)}: {_value(value)}" for key, value in ordered.items()) + "\n}\n"


def from_json(text: str | bytes, source: str) -> Report:
    """Returns the report of :func:`to_json`, without the fields that are not in JSON; ``source`` names it.

    Raises DataError for a text that is no report, and for a report of another version of distprof.
    """
    try:
        values = json.loads(text)
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema == REPORT_SCHEMA:
            report: Report = _typed(Report, values)
            return report
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"{source} is no report that this version of distprof reads ({type(error).__name__}): merge the run again"
        ) from None
    what = f"is of schema {schema!r}, this version reads {REPORT_SCHEMA!r}" if schema else "is no report"
    raise DataError(f"{source} {what}: merge the run again")


def plain(value: Any) -> Any:
    """Returns dataclasses as dicts, tuples as lists, keys as strings, in their order, and whole numbers as integers."""
    if is_dataclass(value):
        written = [field.name for field in fields(value) if NOT_IN_JSON not in field.metadata]
        return {name: plain(getattr(value, name)) for name in written}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


def _typed(hint: Any, value: Any) -> Any:
    """Returns the JSON ``value`` as the type ``hint`` declares.  Raises TypeError or KeyError where it has another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _typed(next(kind for kind in arguments if kind is not type(None)), value)
    if origin is tuple:
        return tuple(_typed(arguments[0], item) for item in _checked(list, value))
    if origin is dict:
        return {arguments[0](key): _typed(arguments[1], item) for key, item in _checked(dict, value).items()}
    if is_dataclass(hint):
        hints = _hints(typing.cast(Hashable, hint))
        return typing.cast(Any, hint)(
            **{name: _typed(hints[name], item) for name, item in _checked(dict, value).items()}
        )
    return float(value) if hint is float and type(value) is int else _checked(hint, value)


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(typing.cast(Any, kind))


def _checked(kind: Any, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
