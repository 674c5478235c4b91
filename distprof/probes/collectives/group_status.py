"""How far the collectives of each group are, by the status of torch's flight recorder: its ring is not read."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from distprof.topology.process_groups import SeenGroup, groups

_C10D = "torch._C._distributed_c10d"
_STATUS = ("_dump_fr_trace_json", "_dump_nccl_trace_json")
_MEMBER_BYTES = 8


class GroupStatus(NamedTuple):
    """One group: name, size, a number made of its members, and the numbers of its last collectives (-1: not known)."""

    name: str
    size: int
    members: int
    enqueued: int
    completed: int


def group_status() -> list[GroupStatus]:
    """Returns the groups of this process in the order of creation; from any thread, without communication.

    Numbers are -1 where torch's status cannot be assigned to the groups: it names them by the order of creation.
    """
    seen, status = groups(), _status()
    numbers = [status[key] for key in sorted(status, key=int)] if all(map(str.isdecimal, status)) else []
    if len(numbers) != len(seen):
        return [_group(group, {}) for group in seen]
    return [_group(group, progress) for group, progress in zip(seen, numbers, strict=True)]


def members_number(ranks: tuple[int, ...]) -> int:
    """Returns a number that is the same in all ranks of a group: they join on it."""
    text = ",".join(map(str, sorted(ranks)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_MEMBER_BYTES).digest(), "little")


def _group(group: SeenGroup, progress: Mapping[str, Any]) -> GroupStatus:
    name = group.description if group.description not in ("", "undefined") else group.name
    return GroupStatus(
        name,
        len(group.ranks),
        members_number(group.ranks),
        int(progress.get("last_enqueued_collective", -1)),
        int(progress.get("last_completed_collective", -1)),
    )


def _status() -> Mapping[str, Mapping[str, Any]]:
    c10d = sys.modules.get(_C10D)
    found = (getattr(c10d, name, None) for name in _STATUS)
    dump: Callable[..., bytes] | None = next((function for function in found if function is not None), None)
    try:
        status = json.loads(dump(False, False)).get("pg_status", {}) if dump is not None else {}
        return status if isinstance(status, dict) else {}
    except Exception:  # a build without it, or another form: then nothing is known
        return {}
