"""The status of a node as plain data: what its daemon sends, and what ``top`` and ``status`` read of it.

Values come from a page or from another node: what is not of the right type or size is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

#: No job has more ranks on a node than a page has slots.
MAX_RANKS = 256
_MAX_TEXT = 300
_LARGEST = 1 << 63


@dataclass(frozen=True)
class RankStatus:
    """One rank.  Ages are seconds before the status was made; None: not known."""

    rank: int
    world_size: int
    local_rank: int
    pid: int
    host: str
    place: str
    device: str
    state: str  # quiet, counted, timed, ended, unseen (the recording has ended), dead (its process has gone)
    iteration: int  # the running one
    age_s: float  # since it began
    iteration_ns: int | None  # the running mean of durations
    median_ns: int | None  # of all iterations
    p99_ns: int | None
    window: int  # the one that runs, or ran last
    window_end: int  # the first iteration after it
    phase: str
    module: str
    activity_age_s: float | None  # since phase and module were looked at
    data_ns: int | None  # wait for data in the last timed iteration
    timed_ns: int | None  # its duration
    samples: int | None  # in it
    peak_bytes: int | None  # peak memory of the last timed iteration
    resident_bytes: int | None  # of the process
    error: str
    request: int  # the last request that the rank answered, 0: none
    request_window: int
    refusal: str  # why the rank refused it, empty if it accepted


@dataclass(frozen=True)
class NodeStatus:
    """One node.  ``wall_ns``: when the status was made; ``request``: the last request that the daemon saw."""

    node: str
    host: str
    wall_ns: int
    request: int
    ranks: tuple[RankStatus, ...]


def to_message(status: NodeStatus) -> dict[str, Any]:
    return asdict(status)


def from_message(message: Mapping[str, Any]) -> NodeStatus:
    """Returns the status in a message.  Raises ValueError if it is none."""
    ranks = message.get("ranks")
    if not isinstance(ranks, list) or len(ranks) > MAX_RANKS:
        raise ValueError("no list of ranks")
    values = {**message, "ranks": tuple(_checked(RankStatus, rank) for rank in ranks)}
    status: NodeStatus = _checked(NodeStatus, values)
    return status


def _checked(kind: Any, values: Any) -> Any:
    """Returns a dataclass of ``kind`` whose fields have values of their types; unknown keys are ignored."""
    if not isinstance(values, Mapping):
        raise ValueError("no map")
    chosen = {field.name: values.get(field.name) for field in fields(kind)}
    for field in fields(kind):
        if not _fits(chosen[field.name], str(field.type)):
            raise ValueError(f"{field.name} is no {field.type}")
    return kind(**chosen)


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("None")
    if kind.startswith("str"):
        return isinstance(value, str) and len(value) <= _MAX_TEXT
    if kind.startswith("int"):
        return type(value) is int and abs(value) < _LARGEST
    if kind.startswith("float"):
        return type(value) in (int, float) and abs(value) < float(_LARGEST)
    return isinstance(value, Sequence)
