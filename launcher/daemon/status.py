"""The status of a node as plain data: what its daemon sends, and what ``top`` and ``status`` read of it.

Values come from a page or from another node: what is not of the right type or size is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from distprof.heartbeat.hang_file import Hang
from distprof.heartbeat.hang_file import from_message as hang_of
from distprof.heartbeat.hang_file import to_message as hang_message
from distprof.launcher.daemon.hang_watch.evidence import NodeEvidence
from distprof.launcher.daemon.hang_watch.evidence import from_message as evidence_of
from distprof.launcher.daemon.hang_watch.evidence import to_message as evidence_message
from distprof.launcher.daemon.slow_rank.history import Slowest

#: No job has more ranks on a node than a page has slots.
MAX_RANKS = 256
#: Daemons of one job may be of different releases for a moment; those of another version are not heard.
VERSION = 1
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
    limit_s: float  # from which age on the rank counts as stuck
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
    slowest_in: int | None = None  # of the last sampled iterations: those in which the rank was the slowest
    sampled: int | None = None  # iterations in which one rank was seen to be the slowest, at most the last 50
    wait_share: float | None = None  # of the last looks: those in which the rank waited for another one
    collective_group: str = ""  # of the collective that runs or ran last, looked at with phase and module
    collective_op: str | None = None
    collective_number: int | None = None  # in its group
    collective_runs: bool | None = None


@dataclass(frozen=True)
class NodeStatus:
    """One node.  ``wall_ns``: when the status was made; ``request``: the last request that the daemon saw.

    ``evidence``: of its ranks, while they seem to stand still; ``hang``: what the daemon that judges has found;
    ``slowest``: the rank of the node that is the slowest again and again.
    """

    node: str
    host: str
    wall_ns: int
    request: int
    ranks: tuple[RankStatus, ...]
    evidence: NodeEvidence | None = None
    hang: Hang | None = None
    slowest: Slowest | None = None


_RANK_FIELDS = tuple(field.name for field in fields(RankStatus))


def to_message(status: NodeStatus) -> dict[str, Any]:
    """Returns a small message: a rank is the list of its values, in the order of the fields."""
    ranks = [[getattr(rank, name) for name in _RANK_FIELDS] for rank in status.ranks]
    evidence = None if status.evidence is None else evidence_message(status.evidence)
    hang = None if status.hang is None else hang_message(status.hang)
    slowest = None if status.slowest is None else asdict(status.slowest)
    plain = asdict(replace(status, ranks=(), evidence=None, hang=None, slowest=None))
    return {**plain, "ranks": ranks, "evidence": evidence, "hang": hang, "slowest": slowest, "version": VERSION}


def from_message(message: Mapping[str, Any]) -> NodeStatus:
    """Returns the status in a message.  Raises ValueError if it is none, or of another version."""
    ranks = message.get("ranks")
    if message.get("version") != VERSION or not isinstance(ranks, list) or len(ranks) > MAX_RANKS:
        raise ValueError("no list of ranks of this version")
    if not all(isinstance(rank, list) and len(rank) == len(_RANK_FIELDS) for rank in ranks):
        raise ValueError("a rank of another form")
    found = tuple(_checked(RankStatus, dict(zip(_RANK_FIELDS, rank, strict=True))) for rank in ranks)
    evidence, hang, slowest = (message.get(name) for name in ("evidence", "hang", "slowest"))
    parts = {
        "evidence": None if evidence is None else evidence_of(evidence),
        "hang": None if hang is None else hang_of(hang),
        "slowest": None if slowest is None else _slowest_of(slowest),
    }
    status: NodeStatus = _checked(NodeStatus, {**message, "ranks": found, **parts})
    return status


def _slowest_of(message: Any) -> Slowest:
    """Raises ValueError for anything else."""
    if not isinstance(message, Mapping):
        raise ValueError("no map of a slowest rank")
    found: Slowest = _checked(Slowest, message)
    return found


def _checked(kind: Any, values: Mapping[str, Any]) -> Any:
    """Returns a dataclass of ``kind`` whose fields have values of their types; other keys are ignored."""
    chosen = {field.name: values.get(field.name) for field in fields(kind)}
    for field in fields(kind):
        if not _fits(chosen[field.name], str(field.type)):
            raise ValueError(f"{field.name} is no {field.type}")
    return kind(**chosen)


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("None")
    if kind.startswith("bool"):
        return isinstance(value, bool)
    if kind.startswith("str"):
        return isinstance(value, str) and len(value) <= _MAX_TEXT
    if kind.startswith("int"):
        return type(value) is int and abs(value) < _LARGEST
    if kind.startswith("float"):
        return type(value) in (int, float) and abs(value) < float(_LARGEST)
    return isinstance(value, Sequence | NodeEvidence | Hang | Slowest)
