"""Records to plain msgpack-able values and back, checked field by field against :mod:`distprof.records`.

What comes back from a file may be hostile or from a newer writer: a wrong type or a missing field is a
:class:`RecordError`, an unknown field is passed over, and an array's bytes must fit its dtype.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from distprof.errors import DataError
from distprof.records import RECORDS, Record


class RecordError(DataError):
    """A payload does not fit its record's schema."""


def to_payload(record: Record) -> dict[str, Any]:
    """The record's fields as a map of plain values; bulk arrays as their little-endian bytes."""
    return _plain_fields(record)


def from_payload(kind: str, payload: object) -> Record:
    """The record of a known ``kind``.  Raises RecordError when the payload does not fit it."""
    record: Record = _build(RECORDS[kind], payload, kind)
    return record


def to_json(record: Record) -> dict[str, Any]:
    """The record as JSON-able values, arrays as lists of numbers: what ``distprof dump`` prints."""
    return {field.name: _json_value(getattr(record, field.name)) for field in dataclasses.fields(record)}


def _json_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return value


def _plain_fields(record: Any) -> dict[str, Any]:
    return {
        name: np.ascontiguousarray(getattr(record, name), dtype).tobytes() if dtype else _plain(getattr(record, name))
        for name, dtype, _, _ in _schema(type(record))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, bytes, bool)):
        return value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, (dict, float)) else _plain_fields(value)


Decoder = Callable[[object, str], Any]


@functools.lru_cache(maxsize=None)
def _schema(record: type) -> tuple[tuple[str, str | None, Decoder, bool], ...]:
    """(name, dtype of a bulk field, decoder, required) of each field."""
    hints = typing.get_type_hints(record)
    return tuple(
        (
            field.name,
            field.metadata.get("dtype"),
            _array_decoder(field.metadata["dtype"]) if "dtype" in field.metadata else _decoder(hints[field.name]),
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(record)
    )


def _build(record: type, payload: object, where: str) -> Any:
    if not isinstance(payload, dict):
        raise RecordError(f"{where}: expected a map, found {type(payload).__name__}")
    values = {}
    for name, _, decode, required in _schema(record):
        if name in payload:
            values[name] = decode(payload[name], f"{where}.{name}")
        elif required:
            raise RecordError(f"{where}: field {name!r} is missing")
    return record(**values)


def _decoder(hint: Any) -> Decoder:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        item = _decoder(arguments[0])
        return lambda value, where: tuple(item(v, where) for v in _expect(value, list, where))
    if origin is dict:
        key, item = _decoder(arguments[0]), _decoder(arguments[1])
        return lambda value, where: {key(k, where): item(v, where) for k, v in _expect(value, dict, where).items()}
    if dataclasses.is_dataclass(hint):
        return functools.partial(_decode_nested, hint)
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return functools.partial(_decode_scalar, hint)
    raise TypeError(f"records may not hold {hint!r}")  # a mistake in records.py, met by its own test


def _decode_nested(record: type, value: object, where: str) -> Any:
    return _build(record, value, where)


def _decode_scalar(expected: type, value: object, where: str) -> Any:
    return _expect(value, expected, where)


def _expect(value: object, expected: type, where: str) -> Any:
    # bool is an int to Python, but not to the format.
    if type(value) is expected or (expected is float and type(value) is int):
        return value
    raise RecordError(f"{where}: expected {expected.__name__}, found {type(value).__name__}")


def _array_decoder(dtype: str) -> Decoder:
    itemsize = np.dtype(dtype).itemsize

    def decode(value: object, where: str) -> Any:
        data: bytes = _expect(value, bytes, where)
        if len(data) % itemsize:
            raise RecordError(f"{where}: {len(data)} bytes are no whole number of {dtype}")
        return np.frombuffer(data, dtype)

    return decode
