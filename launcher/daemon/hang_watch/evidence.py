"""What the daemons of a job know of ranks that stand still, as plain data that they exchange.

Values come from other nodes: what is not of the right type or size is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from distprof.heartbeat.rank_look import GroupLook, OpLook

_MOST_TEXT, _MOST_ITEMS = 300, 1 << 12
_MOST_RANKS = 1 << 20
DEAD, ENDED = "dead", "ended"
#: Where a stack comes from.
OF_RANK, OF_PY_SPY, OF_PROC = "the rank", "py-spy", "/proc"


@dataclass(frozen=True)
class RankEvidence:
    """One rank at the second of two looks."""

    rank: int
    state: str  # quiet, counted, timed, ended, unseen, dead (its process has gone)
    pid: int
    iteration: int
    age_s: float  # since the running iteration began
    limit_s: float  # of the running iteration
    source: str = ""  # of the stack; empty where there is none
    place: str = ""  # the innermost call of the user's code
    phase: str = ""
    process: str = ""  # the state of the process, as in /proc: R, S, D, T (stopped), Z
    busy: float = 0.0  # its share of a core between the looks
    could_wait: bool = True  # whether its thread may be waiting for a collective
    moved: bool = False  # whether its iteration, its collectives or its outer calls went on between the looks
    progress: Mapping[str, tuple[int, int]] | None = None  # key of a group -> (enqueued, completed); None: not known
    ops: tuple[OpLook, ...] = ()

    @property
    def runs(self) -> bool:
        return self.state not in (DEAD, ENDED)


@dataclass(frozen=True)
class Members:
    """A group: its name and its ranks."""

    name: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class NodeEvidence:
    """The ranks of one node."""

    ranks: tuple[RankEvidence, ...]
    groups: Mapping[str, Members]  # key -> group


def members_of(looks: Sequence[GroupLook]) -> dict[str, Members]:
    return {group.key: Members(group.name, group.ranks) for group in looks}


def join(parts: Sequence[NodeEvidence]) -> NodeEvidence:
    """Returns the evidence of all nodes together."""
    groups = {key: group for part in parts for key, group in part.groups.items()}
    ranks = {rank.rank: rank for part in parts for rank in part.ranks}
    return NodeEvidence(tuple(ranks[number] for number in sorted(ranks)), groups)


def to_message(evidence: NodeEvidence) -> dict[str, Any]:
    """Returns a small message: ranks that are evenly spaced are three numbers."""
    keys = {key: place for place, key in enumerate(evidence.groups)}
    return {
        "groups": [[key, group.name, _packed(group.ranks)] for key, group in evidence.groups.items()],
        "ranks": [_rank_values(rank, keys) for rank in evidence.ranks],
    }


def _rank_values(rank: RankEvidence, keys: Mapping[str, int]) -> list[Any]:
    progress = None
    if rank.progress is not None:
        progress = [[keys[key], *numbers] for key, numbers in rank.progress.items() if key in keys]
    ops = [[keys.get(op.group, -1), op.number, op.op, op.size, op.done, op.peer] for op in rank.ops]
    numbers = [rank.rank, rank.state, rank.pid, rank.iteration, round(rank.age_s, 2), round(rank.limit_s, 2)]
    flags = [rank.process, round(rank.busy, 2), rank.could_wait, rank.moved]
    return [*numbers, rank.source, rank.place[:_MOST_TEXT], rank.phase, *flags, progress, ops]


def from_message(message: Mapping[str, Any]) -> NodeEvidence:
    """Returns the evidence in a message.  Raises ValueError if it is none."""
    try:
        groups = {_text(key): Members(_text(name), _unpacked(ranks)) for key, name, ranks in _items(message["groups"])}
        keys = dict(enumerate(groups))
        return NodeEvidence(tuple(_rank(values, keys) for values in _items(message["ranks"])), groups)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no evidence: {type(error).__name__}") from None


def _rank(values: Any, keys: Mapping[int, str]) -> RankEvidence:
    rank, state, pid, iteration, age_s, limit_s, source, place, phase, process, busy, could, moved, progress, ops = (
        values
    )
    found = RankEvidence(
        rank=_number(rank),
        state=_text(state),
        pid=_number(pid),
        iteration=_number(iteration),
        age_s=_real(age_s),
        limit_s=_real(limit_s),
        source=_text(source),
        place=_text(place),
        phase=_text(phase),
        process=_text(process),
        busy=_real(busy),
        could_wait=bool(could),
        moved=bool(moved),
        ops=tuple(_op(op, keys) for op in _items(ops)),
    )
    if progress is None:
        return found
    numbers = {keys[key]: (_number(first), _number(second)) for key, first, second in _items(progress)}
    return replace(found, progress=numbers)


def _op(values: Any, keys: Mapping[int, str]) -> OpLook:
    group, number, op, size, done, peer = values
    return OpLook(keys.get(group, ""), _number(number), _text(op), _text(size), bool(done), _number(peer))


def _packed(ranks: Sequence[int]) -> list[int] | list[list[int]]:
    """Returns [first, end, step] of ranks that are evenly spaced, else [[...]] with all."""
    steps = {second - first for first, second in pairwise(ranks)}
    if len(steps) <= 1 and not any(step <= 0 for step in steps):
        step = steps.pop() if steps else 1
        return [ranks[0], ranks[-1] + 1, step] if ranks else [0, 0, 1]
    return [list(ranks)]


def _unpacked(packed: Any) -> tuple[int, ...]:
    if len(packed) == 1:
        return tuple(_number(rank) for rank in packed[0][:_MOST_RANKS])
    found = range(*map(_number, packed))
    if len(found) > _MOST_RANKS:
        raise TypeError
    return tuple(found)


def _items(found: Any) -> Sequence[Any]:
    if not isinstance(found, list) or len(found) > _MOST_ITEMS:
        raise TypeError
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise TypeError
    return value


def _number(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 62:
        raise TypeError
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or abs(value) > 1e15:
        raise TypeError
    return float(value)
