"""Reduced ranks as bytes, on their way from one process to another; never from a file of unknown origin.

Trees and parameters, which many ranks share, travel as the payloads of their records: once a chunk, and they are
decoded once in the process that unpacks them.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from distprof.merge.load.rank import RankData, RankReader
from distprof.merge.load.shared_values import SharedValues
from distprof.plain import dataclass

#: The attributes of RankData that are made from records of their own.
_TREE, _PARAMETERS = "tree", ("parameters", "evaluated")
#: (kind, payload) of a record.
_Key = tuple[str, bytes]


@dataclass(frozen=True)
class Unread:
    """A file that could not be read, and why."""

    name: str
    why: str


Outcome = RankData | Unread


def pack(outcomes: Sequence[Outcome], reader: RankReader) -> bytes:
    """Returns what ``reader`` made of some files as bytes."""
    shared, places = SharedValues(), dict[_Key, int]()
    packed = [_packed(shared.of_rank(one), reader, places) if isinstance(one, RankData) else one for one in outcomes]
    return pickle.dumps((list(places), packed), pickle.HIGHEST_PROTOCOL)


def unpack(content: bytes, reader: RankReader) -> list[Outcome]:
    """Returns the outcomes; what ``reader`` has made of the same records before is used again."""
    keys, packed = pickle.loads(content)
    return [_unpacked(one, reader, keys) if isinstance(one, dict) else one for one in packed]


def _packed(data: RankData, reader: RankReader, places: dict[_Key, int]) -> dict[str, Any]:
    def places_of(made: Any) -> list[int]:
        keys = map(reader.cache.key_of, reader.records_of(made))
        return [places.setdefault(key, len(places)) for key in keys]

    values = dict(vars(data))
    return {**values, **{name: places_of(values[name]) for name in (_TREE, *_PARAMETERS)}}


def _unpacked(values: Mapping[str, Any], reader: RankReader, keys: Sequence[_Key]) -> RankData:
    def records(name: str) -> list[Any]:
        return [reader.cache.record(*keys[place]) for place in values[name]]

    made = {name: reader.parameters_of(records(name)) for name in _PARAMETERS}
    return RankData(**{**values, _TREE: reader.tree_of(records(_TREE)), **made})
