"""Measures what reading torch's flight recorder costs a rank, once in its window.

python -m bench.ring        prints a :class:`Ring` as JSON
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from threading import get_ident

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from distprof.probes.collectives.flight_recorder import FlightRecorder

_ENTRIES, _TIMES = 1_900, 7  # a ring of torch's default size, nearly full


@dataclass(frozen=True)
class Ring:
    """CPU times of some reads of a ring of ``entries``, and of torch's own dump, which is a part of each."""

    entries: int
    read_ms: list[float]
    dump_ms: list[float]


def measure() -> Ring:
    """Reads the ring some times; there is one process, which enqueues collectives of its own."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        times = [_read() for _ in range(_TIMES)][1:]  # the first ring was not full
    finally:
        dist.destroy_process_group()
    read_ms, dump_ms = map(list, zip(*times, strict=True))
    return Ring(_ENTRIES, read_ms, dump_ms)


def _read() -> tuple[float, float]:
    """Returns the ms of one read of new entries, and of a dump alone."""
    tensor, ring = torch.zeros(8), FlightRecorder(get_ident())
    ring.open(time.time_ns())
    for _ in range(_ENTRIES):
        dist.all_reduce(tensor)
    began = time.process_time_ns()
    ring.dump()
    dumped = time.process_time_ns()
    seen = ring.close()
    read = time.process_time_ns()
    if len(seen.entries) != _ENTRIES:
        raise RuntimeError(f"{len(seen.entries)} entries were read: {_ENTRIES} were expected")
    return (read - dumped) / 1e6, (dumped - began) / 1e6


if __name__ == "__main__":
    print(json.dumps(asdict(measure())))
