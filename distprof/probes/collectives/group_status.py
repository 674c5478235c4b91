"""How far the collectives of each group are, by the status of torch's flight recorder: its ring is not read."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from distprof.topology.process_groups import SeenGroup, all_reached

_C10D = "torch._C._distributed_c10d"
_STATUS = ("_dump_fr_trace_json", "_dump_nccl_trace_json")
_MEMBER_BYTES = 8
_ENQUEUED = "last_enqueued_collective"


class GroupStatus(NamedTuple):
    """One group: name, size, a number made of its members, and the numbers of its last collectives (-1: not known)."""

    name: str
    size: int
    members: int
    enqueued: int
    completed: int


def group_status(seen: Sequence[SeenGroup]) -> list[GroupStatus]:
    """Returns how far each of the groups of this process is; from any thread, without communication.

    Numbers are -1 where torch's status cannot be assigned to the groups: it numbers them in the order of creation, has
    only those that were used, and keeps those that are gone.
    """
    status = _status()
    numbers = [status[key] for key in sorted(status, key=int)] if all(map(str.isdecimal, status)) else []
    found = _assigned([group.name for group in seen], numbers) if numbers else {}
    return [_group(group, found.get(group.name, {})) for group in seen]


def members_number(ranks: tuple[int, ...]) -> int:
    """Returns a number that is the same in all ranks of a group: they join on it."""
    text = ",".join(map(str, sorted(ranks)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_MEMBER_BYTES).digest(), "little")


def _assigned(names: Sequence[str], numbers: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Returns the numbers of each group: of all, or else of those that were used, if there are as many of them."""
    reached = all_reached()
    for chosen in (names, [name for name in names if reached.get(name) != 0]):
        if len(chosen) == len(numbers) and all(
            (ops := reached.get(name)) is None or int(progress.get(_ENQUEUED, -1)) <= ops  # which are sends, too
            for name, progress in zip(chosen, numbers, strict=True)
        ):
            return dict(zip(chosen, numbers, strict=True))
    return {}


def _group(group: SeenGroup, progress: Mapping[str, Any]) -> GroupStatus:
    name = group.description if group.description not in ("", "undefined") else group.name
    return GroupStatus(
        name,
        len(group.ranks),
        members_number(group.ranks),
        int(progress.get(_ENQUEUED, -1)),
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
