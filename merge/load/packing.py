"""Reduced ranks as bytes, on their way from one process to another; never from a file of unknown origin.

Trees and parameters, which many ranks share, travel as the payloads of their records: once a chunk, and they are
decoded once in the process that unpacks them.  A rank has their numbers instead.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank import RankData, RankReader
from distprof.merge.load.shared_values import SharedValues
from distprof.plain import dataclass

#: The attributes of RankData that are made from records of their own.
_MADE = ("tree", "parameters", "evaluated")


@dataclass(frozen=True)
class Unread:
    """A file that could not be read, and why."""

    name: str
    why: str


Outcome = RankData | Unread


def pack(outcomes: Sequence[Outcome], reader: RankReader) -> bytes:
    """Returns what ``reader`` made of some files as bytes."""
    shared, numbers = SharedValues(), dict[RankTree | ParameterSet, int]()
    packed = [_packed(shared.of_rank(one), numbers) if isinstance(one, RankData) else one for one in outcomes]
    models = [(type(made), [reader.cache.key_of(record) for record in reader.records_of(made)]) for made in numbers]
    return pickle.dumps((models, packed), pickle.HIGHEST_PROTOCOL)


def unpack(content: bytes, reader: RankReader) -> list[Outcome]:
    """Returns the outcomes; what ``reader`` has made of the same records before is used again."""
    models, packed = pickle.loads(content)
    made = [_made(kind, keys, reader) for kind, keys in models]
    return [_unpacked(one, made) if isinstance(one, dict) else one for one in packed]


def _packed(data: RankData, numbers: dict[RankTree | ParameterSet, int]) -> dict[str, Any]:
    values = dict(vars(data))
    return {**values, **{name: numbers.setdefault(values[name], len(numbers)) for name in _MADE}}


def _made(kind: type, keys: Sequence[tuple[str, bytes]], reader: RankReader) -> RankTree | ParameterSet:
    """Returns what a reader makes of the records of these kinds and payloads."""
    records: list[Any] = [reader.cache.record(*key) for key in keys]
    return reader.tree_of(records) if kind is RankTree else reader.parameters_of(records)


def _unpacked(values: Mapping[str, Any], made: Sequence[RankTree | ParameterSet]) -> RankData:
    return RankData(**{**values, **{name: made[values[name]] for name in _MADE}})
