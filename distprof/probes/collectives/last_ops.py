"""The groups of this process and the last collectives of each, by torch's flight recorder.

The ring is read as a whole, which may take a tenth of a second: only where a job seems to stand still.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from distprof.heartbeat.rank_look import UNKNOWN, GroupLook, OpLook
from distprof.probes.collectives.flight_recorder import op_name
from distprof.probes.collectives.group_status import group_status
from distprof.topology.process_groups import SeenGroup, groups

_C10D = "torch._C._distributed_c10d"
_DUMPS = ("_dump_fr_trace_json", "_dump_nccl_trace_json")
#: Collectives that are kept of each group.
_LAST = 4
#: NCCL's name of a send or receive: ``send 0->1``, ``recv 1<-0``, with ranks of the group.
_MESSAGE = re.compile(r"(send|recv) (\d+)(->|<-)(\d+)")
_LONGEST_SIZE = 80


def group_looks() -> tuple[GroupLook, ...]:
    """Returns the groups of this process in the order of creation."""
    seen, made = groups(), Counter[int]()
    found = []
    for group, progress in zip(seen, group_status(seen), strict=True):
        made[progress.members] += 1
        key = f"{progress.members:016x}.{made[progress.members]}"
        found.append(GroupLook(key, progress.name, group.ranks, progress.enqueued, progress.completed))
    return tuple(found)


def last_ops(looks: tuple[GroupLook, ...]) -> tuple[OpLook, ...]:
    """Returns the last collectives of the groups, of which some may run, and the sends and receives that run."""
    keys = {group.name: (look.key, group) for group, look in zip(groups(), looks, strict=False)}
    of_group: dict[str, list[OpLook]] = {}
    for found in _entries():
        name = found["process_group"][0]
        if name in keys:
            op = _op(found, *keys[name])
            if op.number >= 0 or not op.done:
                of_group.setdefault(name, []).append(op)
    return tuple(op for ops in of_group.values() for op in ops[-_LAST:])


def _op(found: Mapping[str, Any], key: str, group: SeenGroup) -> OpLook:
    message = _MESSAGE.search(found["profiling_name"]) if found.get("is_p2p") else None
    number = UNKNOWN if found.get("is_p2p") else int(found["collective_seq_id"])
    done = found.get("state") == "completed" or bool(found.get("retired"))
    op = op_name(found["profiling_name"]) if message is None else message[1]
    return OpLook(key, number, op, _size(found), done, _peer(message, group))


def _peer(message: re.Match[str] | None, group: SeenGroup) -> int:
    place = int(message[4]) if message is not None else UNKNOWN
    return group.ranks[place] if 0 <= place < len(group.ranks) else UNKNOWN


def _size(found: Mapping[str, Any]) -> str:
    shapes = found.get("input_sizes") or found.get("output_sizes") or ()
    dtypes = found.get("input_dtypes") or found.get("output_dtypes") or ()
    parts = [
        f"{dtype}[{', '.join(map(str, shape))}]"
        for shape, dtype in zip(shapes, [*dtypes, *[""] * len(shapes)], strict=False)
    ]
    return ", ".join(parts)[:_LONGEST_SIZE]


def _entries() -> Iterator[Mapping[str, Any]]:
    """Yields the entries of the ring; none where torch has none, or one of another form."""
    c10d = sys.modules.get(_C10D)
    dump = next((found for name in _DUMPS if (found := getattr(c10d, name, None)) is not None), None)
    try:
        yield from json.loads(dump(True, False)).get("entries", ()) if dump is not None else ()
    except (TypeError, ValueError, RuntimeError):
        return
