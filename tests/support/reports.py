"""Reports for tests: of synthetic runs, as they are or with changed records, and read back from JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from support.synthetic import Job, in_memory, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import CollectiveRow, Collectives, RankWait, Report
from distprof.peaks.table import DATASHEET_PEAKS, Peaks
from distprof.records import Record

#: Given a rank and one of its records, returns the record that the shard holds instead, or None for none.
Change = Callable[[int, Record], Record | None]


@lru_cache(maxsize=32)
def report_of(**job: Any) -> Report:
    """The report of the :class:`Job` made of the arguments."""
    return analyse(run_of_shards(in_memory(Job(**job))))


def changed_report(
    change: Change | None = None, without: Collection[int] = (), peaks: Peaks = DATASHEET_PEAKS, **job: Any
) -> Report:
    """The report of the :class:`Job` made of the arguments, with changed records, and without some ranks."""
    made = Job(**job)
    shards = []
    for rank in sorted(set(range(made.world)) - set(without)):
        kept = [change(rank, record) if change else record for record in rank_records(made, rank)]
        shards.append(shard_of(record for record in kept if record is not None))
    return analyse(run_of_shards(shards), peaks)


def collectives_of(ranks: int) -> Collectives:
    """Collectives of a data-parallel job in which rank 1 arrives late, with plain numbers."""
    rows = (
        CollectiveRow("dp", "all_reduce", 1, ranks, 12, 4 << 20, 40e6, 25e6, 5e6, (4 << 20) / 5e-3, 0.3),
        CollectiveRow("world", "barrier", 1, ranks, 1, 0, 2e6, 3e6, None, None, 0.03),
    )
    waits = tuple(
        RankWait(rank, 0.5e6, 20e6, 9) if rank == 1 else RankWait(rank, 25e6, -2e6, 0) for rank in range(ranks)
    )
    return Collectives("", ranks, 3, rows, waits)
