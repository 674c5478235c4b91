"""What a rank tells of itself when it is asked: its stacks, its groups, and its last collectives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

_Item = TypeVar("_Item")
#: Bounds of what is read: the file may come from elsewhere.
_MOST_ITEMS, _MOST_FRAMES, _MOST_TEXT = 256, 200, 500
_MOST_RANKS = 1 << 20
#: A peer or a number that is not known.
UNKNOWN = -1


class Frame(NamedTuple):
    """One call of a stack."""

    function: str
    file: str
    line: int


@dataclass(frozen=True)
class Stack:
    """The calls of one thread, the innermost first."""

    thread: str
    trains: bool  # whether it is the thread that trains
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class GroupLook:
    """How far the collectives of one group are.  Groups with the same members and the same place among those of them
    that a rank has made have the same ``key`` on all ranks.
    """

    key: str
    name: str
    ranks: tuple[int, ...]
    enqueued: int  # the number of the last collective; -1: not known
    completed: int


@dataclass(frozen=True)
class OpLook:
    """One of the last collectives of a group, or a send or receive that runs now."""

    group: str  # the key
    number: int  # of the collective in its group; -1: a send or receive
    op: str
    size: str  # the shapes and types of its tensors, as text
    done: bool
    peer: int = UNKNOWN  # the other rank of a send or receive


@dataclass(frozen=True)
class RankLook:
    """The answer of a rank to the look with this number."""

    number: int
    stacks: tuple[Stack, ...]
    groups: tuple[GroupLook, ...] = ()
    ops: tuple[OpLook, ...] = ()
    waits_in_futex: bool | None = None  # whether the thread that trains waits in a lock or condition; None: not known
    evaluates: bool = False  # the model is in evaluation mode


def pack_look(look: RankLook) -> bytes:
    return json.dumps(asdict(look)).encode("utf-8", "backslashreplace")


def parse_look(content: bytes) -> RankLook:
    """Raises ValueError for anything that is no look."""
    try:
        values = json.loads(content)
        waits = values["waits_in_futex"]
        return RankLook(
            _number(values["number"]),
            _items(values["stacks"], _stack),
            _items(values["groups"], _group),
            _items(values["ops"], _op),
            None if waits is None else bool(waits),
            bool(values["evaluates"]),
        )
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"no look of a rank: {type(error).__name__}") from None


def _items(found: Any, parse: Callable[[Any], _Item], most: int = _MOST_ITEMS) -> tuple[_Item, ...]:
    if not isinstance(found, list):
        raise TypeError
    return tuple(parse(one) for one in found[:most])


def _stack(values: Mapping[str, Any]) -> Stack:
    return Stack(_text(values["thread"]), bool(values["trains"]), _items(values["frames"], _frame, _MOST_FRAMES))


def _frame(values: Any) -> Frame:
    function, file, line = values
    return Frame(_text(function), _text(file), _number(line))


def _group(values: Mapping[str, Any]) -> GroupLook:
    ranks = _items(values["ranks"], _number, _MOST_RANKS)
    return GroupLook(
        _text(values["key"]),
        _text(values["name"]),
        ranks,
        _number(values["enqueued"]),
        _number(values["completed"]),
    )


def _op(values: Mapping[str, Any]) -> OpLook:
    return OpLook(
        _text(values["group"]),
        _number(values["number"]),
        _text(values["op"]),
        _text(values["size"]),
        bool(values["done"]),
        _number(values["peer"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value[:_MOST_TEXT]


def _number(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 62:
        raise TypeError
    return value
