"""Undamaged shards with a record of every kind."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from distprof.records import (
    Counts,
    End,
    Error,
    ExpertLayer,
    ExpertLayers,
    ExpertLoad,
    Header,
    Mesh,
    ModuleRow,
    Parameter,
    Parameters,
    Plan,
    Record,
    Step,
    Topology,
    Tree,
)
from distprof.shard.writer import MemorySink, ShardWriter

Random = random.Random


@dataclass(frozen=True)
class Original:
    """An undamaged shard: its records, its bytes, the offset of each record, and the end of the last one."""

    run_id: str
    records: tuple[Record, ...]
    data: bytes
    edges: tuple[int, ...]


def original(run_id: str, rank: int, rows: int, script: str = "train.py") -> Original:
    """Returns a shard with at least one record of every kind, as a recorder writes them."""
    records = tuple(_content(run_id, rank, rows, script))
    sink, edges = MemorySink(), [0]
    writer = ShardWriter(sink)
    for record in records:
        writer.write(record)
        edges.append(len(sink.data))
    return Original(run_id, records, bytes(sink.data), tuple(edges))


def _content(run_id: str, rank: int, rows: int, script: str) -> list[Record]:
    times = np.arange(rows) * 1000 + rank
    modules = tuple(ModuleRow(f"m{row}", "Linear", 0, row - 1, row, "bias=True", 8, 8) for row in range(rows))
    sizes, coordinates = {"dp": 4, "ep": 2, "mp": 1}, {"dp": rank, "ep": 0, "mp": 0}
    steps: list[Record] = []
    for iteration in range(6, 9):
        phases = {"forward": 60, "other": 40 + rank}
        steps.append(
            Step(iteration, "training", 10**18, 100 + rank, phases, 1, 8, 8, 10**9, "rss", times, times, times)
        )
        steps.append(ExpertLoad(iteration, np.arange(2) + rank))
    return [
        Header(run_id, rank, 4, host="node", script=script),
        Plan(5, 1, 3),
        Topology("device_mesh", sizes, coordinates, (Mesh(("dp",), (4,), (rank,)),), ("a note",)),
        Tree(0, modules),
        Parameters(0, tuple(Parameter(f"m{row}.weight", row, 0, 8, 8, 8, "float32", 4) for row in range(rows))),
        ExpertLayers((ExpertLayer("m1", 1, 4, (0, 1)),)),
        Counts(5, "training", 1, 8, times, times, times, uncounted={"aten.topk": 3}),
        *steps,
        Error("timing", "it broke", "Traceback"),
        End("window complete", 9),
    ]
