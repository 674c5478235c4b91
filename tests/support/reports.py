"""Reports for tests: of synthetic runs, as they are or with changed records, and read back from JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import lru_cache
from typing import Any

from support.synthetic import Job, in_memory, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import (
    TOKENS_AND_DEVICE,
    CollectiveRow,
    Collectives,
    ExpertLayerStats,
    ExpertTraffic,
    RankWait,
    Report,
    TokensOrDevice,
)
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


def with_findings_on_experts(report: Report) -> Report:
    """Returns a report whose first MoE layer of four ep ranks has own times, dropped tokens, and traffic."""
    first, *others = report.experts
    assert first.over_steps is not None and report.expert_summary is not None
    why = TokensOrDevice(TOKENS_AND_DEVICE, 0.0, 8e6, (1.0, 1.0, 1.5, 1.0), 3e6)
    lossy = replace(first.over_steps, dropped=tuple(range(len(first.over_steps.max_violation))))
    costly = replace(first, ep_own_ns=(4e6, 20e6, 6e6, 4e6), ep_cost_ns=11.5e6, tokens_or_device=why, over_steps=lossy)
    return replace(
        report,
        experts=(costly, *others),
        expert_summary=replace(report.expert_summary, worst_first=tuple(range(len(report.experts)))),
        expert_traffic=ExpertTraffic((0, 1), ((30.0, 10.0), (0.0, 20.0)), 256, 10240.0, 1 / 6, 0.0),
    )


def expert_layer(report: Report, name: str) -> ExpertLayerStats:
    """Returns the MoE layer of this name; there is one."""
    (layer,) = (layer for layer in report.experts if layer.name == name)
    return layer
