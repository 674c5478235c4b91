"""A small shard, and shards with any bodies."""

from __future__ import annotations

import msgpack
import numpy as np
from support.records import written

from distprof.records import End, Header, ModuleRow, Plan, Record, Step, Tree
from distprof.shard.frames import checksum, frame, scan

HEADER = Header("the-run", 3, 8)
PLAN = Plan(5, 1, 3)
TREE = Tree(0, (ModuleRow("", "Net", 0, -1, 0), ModuleRow("a", "Linear", 0, 0, 1)))
END = End("exit", 9)


def step(iteration: int) -> Step:
    return Step(
        iteration, "training", 5, 7, {"other": 7}, 1, 2, 2, 100, "rss", np.arange(2), np.arange(2), np.arange(2)
    )


RECORDS: list[Record] = [HEADER, PLAN, TREE, step(6), step(7), END]
DATA = written(RECORDS)


def edges(data: bytes) -> list[int]:
    """Returns the offset of each record of an undamaged shard, and the end of the last one."""
    return [0, *np.cumsum([11 + len(body) for body in scan(data).bodies]).tolist()]


def sealed(*bodies: bytes) -> bytes:
    """Returns a shard of any bodies with valid checksums."""
    first = checksum(bodies[0])
    return b"".join(frame(body, checksum(body, first) if n else first) for n, body in enumerate(bodies))


def body(kind: object, sequence: object, payload: object) -> bytes:
    packed: bytes = msgpack.packb([kind, sequence, payload])
    return packed


HEADER_BODY = body("header", 0, {"magic": "distprof", "schema": [3, 0], "run_id": "r", "rank": 0, "world_size": 1})
