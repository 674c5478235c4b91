"""``summary.json``: the report field by field, the schema first, with lines that a diff can compare."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from distprof.errors import DataError
from distprof.merge.report import NOT_IN_JSON, REPORT_SCHEMA, Report
from distprof.printable import printable_json

#: The types of most values; JSON has them as they are.
_AS_THEY_ARE = frozenset((str, int, bool, type(None)))


def to_json(report: Report) -> str:
    """Returns the report as JSON text, with each field and each row of a table on its own line.

    Keys are in the order of the dataclasses' fields.  Whole numbers have no fraction: counts are integers, also where
    they are means.  Raises ValueError for a number that is not finite.
    """
    names = ("schema", *(name for name in _written_fields(Report) if name != "schema"))
    return "{\n" + ",\n".join(f"{_compact(name)}: {_value(getattr(report, name))}" for name in names) + "\n}\n"


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


def whole_as_integer(value: float) -> float | int:
    """Returns a whole number as an integer, and any other one as it is."""
    return int(value) if value.is_integer() else value


def plain(value: Any, number: Callable[[float], float | int] = whole_as_integer) -> Any:
    """Returns dataclasses as dicts, tuples as lists, keys as strings, in their order, and floats as ``number`` does."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _AS_THEY_ARE else plain(item, number) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item, number) for key, item in value.items()}
    if is_dataclass(value):
        kind: type = type(value)
        items = ((name, getattr(value, name)) for name in _written_fields(kind))
        return {name: item if type(item) in _AS_THEY_ARE else plain(item, number) for name, item in items}
    return value


@cache
def _written_fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if NOT_IN_JSON not in field.metadata)


def _value(value: Any) -> str:
    """Returns the JSON of a field of the report; only one of its rows is plain data at a time."""
    if isinstance(value, (list, tuple)) and value:
        return "[\n  " + ",\n  ".join(_compact(plain(item)) for item in value) + "\n]"
    if isinstance(value, dict) or is_dataclass(value):
        return "{\n  " + ",\n  ".join(_members(value)) + "\n}"
    return _compact(plain(value))


def _members(value: Any) -> Iterator[str]:
    kind: type = type(value)
    for name in value if isinstance(value, dict) else _written_fields(kind):
        item = value[name] if isinstance(value, dict) else getattr(value, name)
        yield f"{_compact(str(name))}: {_compact(plain(item))}"


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
