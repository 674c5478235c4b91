"""Converts records to plain values for msgpack and back, and checks each field against :mod:`distprof.records`.

Values from a file may be hostile, or from a newer writer: a wrong type, an int out of its bounds or a missing field is
a :class:`RecordError`, an unknown field is ignored, and an array's bytes must fit its dtype.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import typing
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from distprof.errors import DataError
from distprof.records import INT64, RECORDS, Amount, Bounds, Record


class RecordError(DataError):
    """A payload, or a value on its way into one, does not fit its record's schema."""


def to_payload(record: Any) -> dict[str, Any]:
    """Returns the fields of a record, or of a dataclass in one, as a map of plain values; bulk arrays as their
    little-endian bytes.

    Raises RecordError for an array that its dtype cannot hold exactly; other values are not checked.
    """
    kind: type = type(record)
    plain: dict[str, Any] = vars(record).copy()
    for name, encode in _encoders(kind):
        plain[name] = encode(plain[name])
    return plain


def from_payload(kind: str, payload: object) -> Record:
    """Returns the record of a known ``kind``.  Raises RecordError when the payload does not fit it."""
    try:
        record: Record = _build(RECORDS[kind], payload)
    except _Misfit as misfit:
        raise RecordError(f"{'.'.join((kind, *misfit.path))}: {misfit.why}") from None
    return record


def to_json(record: Record) -> dict[str, Any]:
    """Returns the record as values for JSON: the output of ``distprof dump``.

    Arrays become lists of numbers; numbers that JSON cannot hold (NaN, infinity) become null.
    """
    return {field.name: _json_value(getattr(record, field.name)) for field in dataclasses.fields(record)}


def _json_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_json_value(item) for item in value.tolist()] if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return to_json(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


class _Misfit(Exception):
    """A value that does not fit; each field that the error passes adds its name to ``path``."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: tuple[str, ...] = ()


_DIGITS = 40  # of an amount in decimal digits

Encoder = Callable[[Any], Any]
Decoder = Callable[[object], Any]


class _Field(typing.NamedTuple):
    name: str
    required: bool
    encode: Encoder | None  # None: msgpack takes the value as it is
    decode: Decoder
    kind: type | None  # a value of exactly this type, an int within the bounds, is the field's as it is
    low: int
    high: int


@functools.cache
def _schema(record: type) -> tuple[_Field, ...]:
    return tuple(_field(field, _type(str(field.type), record.__module__)) for field in dataclasses.fields(record))


@functools.cache
def _type(annotation: str, module: str) -> Any:
    """Returns the type that an annotation in a module of records names; typing.get_type_hints evaluates each anew."""
    return eval(annotation, vars(sys.modules[module]))


def _field(field: dataclasses.Field[Any], hint: Any) -> _Field:
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    if "dtype" in field.metadata:
        dtype = np.dtype(field.metadata["dtype"])
        encode, decode = _array_encoder(field.name, dtype), _array_decoder(dtype)
        if field.metadata["amounts"]:
            encode, decode = _amounts_encoder(encode), _amounts_decoder(decode)
        if field.metadata["rounded"]:
            encode, decode = _rounded_encoder(field.name), _rounded_decoder(dtype)
        return _Field(field.name, required, encode, decode, None, 0, 0)
    bounds = _bounds(hint)
    if bounds is not None:
        return _Field(field.name, required, None, _int_decoder(bounds), int, bounds.low, bounds.high)
    return _Field(field.name, required, _encoder(hint), _decoder(hint), hint if hint in (str, bool) else None, 0, 0)


def _bounds(hint: Any) -> Bounds | None:
    """Returns the bounds of an int that msgpack has as it is; None for another type."""
    if hint is int:
        return INT64
    if typing.get_origin(hint) is typing.Annotated and hint != Amount:
        found = typing.get_args(hint)[1]
        return found if isinstance(found, Bounds) else None
    return None


@functools.cache
def _encoders(record: type) -> tuple[tuple[str, Encoder], ...]:
    """Returns the fields that msgpack does not take as they are."""
    return tuple((field.name, field.encode) for field in _schema(record) if field.encode is not None)


def _build(record: type, payload: object) -> Any:
    values: dict[str, Any] = {}
    fields: dict[str, Any] = _expect(dict, payload)
    for name, required, _, decode, kind, low, high in _schema(record):
        if name not in fields:
            if required:
                raise _Misfit(f"field {name!r} is missing")
            continue
        value = fields[name]
        fits = type(value) is kind
        if fits and (kind is not int or low <= value <= high):  # most fields
            values[name] = value
            continue
        try:
            values[name] = decode(value)
        except _Misfit as misfit:
            misfit.path = (name, *misfit.path)
            raise
    return record(**values)


def _encoder(hint: Any) -> Encoder | None:
    """Returns the encoder of nested records and large amounts; msgpack takes all other values as they are."""
    if hint == Amount:
        return _amount
    if hint == dict[str, Amount]:
        return lambda value: {key: _amount(amount) for key, amount in value.items()}
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(typing.get_args(hint)[0]):
        return lambda value: [to_payload(item) for item in value]
    return None


def _decoder(hint: Any) -> Decoder:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        item = _decoder(arguments[0])
        return lambda value: tuple(map(item, _expect(list, value)))
    if origin is dict:
        return _dict_decoder(*arguments)
    bounds = _bounds(hint)
    if bounds is not None:
        return _int_decoder(bounds)
    if hint == Amount:
        return _amount_decoder
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return functools.partial(_build, hint)
    if hint in (str, bool):
        return functools.partial(_expect, hint)
    raise TypeError(f"records may not hold {hint!r}")  # a mistake in records/: every test of the record finds it


def _dict_decoder(key_hint: Any, item_hint: Any) -> Decoder:
    key, item, bounds = _decoder(key_hint), _decoder(item_hint), _bounds(item_hint) if key_hint is str else None

    def decode(value: object) -> Any:
        own: dict[Any, Any] = _expect(dict, value)
        if bounds is not None and own and {*map(type, own)} == {str} and _are_within(own.values(), bounds):
            return own
        return {key(k): item(v) for k, v in own.items()}

    return decode


def _are_within(values: Collection[Any], bounds: Bounds) -> bool:
    """Returns whether all of some values are ints within the bounds."""
    return {*map(type, values)} == {int} and bounds.low <= min(values) and max(values) <= bounds.high


def _expect(expected: type, value: object) -> Any:
    # Exactly that type: bool is an int in Python, but not in the format.
    if type(value) is expected:
        return value
    raise _Misfit(f"expected {expected.__name__}, found {type(value).__name__}")


def _int_decoder(bounds: Bounds) -> Decoder:
    low, high = bounds.low, bounds.high

    def decode(value: object) -> Any:
        if low <= _expect(int, value) <= high:
            return value
        raise _Misfit(f"{value} is not in {low} ... {high}")

    return decode


def _amount(value: int) -> int | str:
    """Returns an amount as text if it exceeds 64 bits, the limit of msgpack."""
    return value if value <= INT64.high else str(value)


def _amount_decoder(value: object) -> Any:
    if type(value) is str:
        if not (value.isascii() and value.isdecimal() and len(value) <= _DIGITS):
            raise _Misfit(f"{value[:_DIGITS]!r} is no amount")
        return int(value)
    return _int_decoder(Bounds(0, INT64.high))(value)


def _amounts_encoder(small: Encoder) -> Encoder:
    def encode(value: Any) -> Any:
        is_large = isinstance(value, np.ndarray) and value.dtype == object
        return [_amount(int(amount)) for amount in value] if is_large else small(value)

    return encode


def _amounts_decoder(small: Decoder) -> Decoder:
    def decode(value: object) -> Any:
        return np.array([_amount_decoder(amount) for amount in value], object) if type(value) is list else small(value)

    return decode


def _array_encoder(name: str, dtype: np.dtype[Any]) -> Encoder:
    def encode(value: Any) -> bytes:
        given = value if type(value) is np.ndarray else np.asarray(value)
        if given.dtype == dtype and given.ndim == 1:
            return given.tobytes()
        if given.ndim == 1 and (given.dtype.kind in "iu" or not given.size):
            array = given.astype(dtype)
            if np.array_equal(array, given):
                return array.tobytes()
        raise RecordError(f"{name}: not a one-dimensional array of numbers that {dtype.str} can hold")

    return encode


_ROUNDED = np.dtype("<f4")
#: Rounded numbers that are read are below this, so that each is an int64; as nanoseconds it is 146 years.
_MOST_ROUNDED = 2.0**62


def _rounded_encoder(name: str) -> Encoder:
    def encode(value: Any) -> bytes:
        given = np.asarray(value)
        if given.ndim == 1 and (given.dtype.kind in "iu" or not given.size):
            return given.astype(_ROUNDED).tobytes()
        raise RecordError(f"{name}: not a one-dimensional array of whole numbers")

    return encode


def _are_whole(floats: Any) -> bool:
    """Whether each is a number that an int64 can hold; NaN is none."""
    return bool(np.maximum.reduce(np.abs(floats), initial=0.0) < _MOST_ROUNDED)  # NaN is the largest


def _rounded_decoder(dtype: np.dtype[Any]) -> Decoder:
    stored = _array_decoder(_ROUNDED)

    def decode(value: object) -> Any:
        floats = stored(value)
        if not _are_whole(floats):
            raise _Misfit("a number is not finite, or not below 2**62")
        whole = floats.astype(dtype)
        whole.flags.writeable = False
        return whole

    return decode


def _array_decoder(dtype: np.dtype[Any]) -> Decoder:
    def decode(value: object) -> Any:
        data: bytes = _expect(bytes, value)
        if len(data) % dtype.itemsize:
            raise _Misfit(f"{len(data)} bytes are no whole number of {dtype.str}")
        return np.frombuffer(data, dtype)

    return decode
