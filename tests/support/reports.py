"""Reports for tests: of synthetic runs, as they are or with changed records, and read back from JSON."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from support.synthetic import Job, in_memory, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.peaks import DATASHEET_PEAKS, Peaks
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import CollectiveRow, Collectives, RankWait, Report
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


def report_from_json(text: str) -> Report:
    """The report in ``summary.json``; fails where a value has another type than the report declares."""
    report: Report = _built(Report, json.loads(text))
    return report


def _built(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _built(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        return tuple(_built(arguments[0], item) for item in value)
    if origin is dict:
        return {arguments[0](key): _built(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        assert list(value) == [field.name for field in dataclasses.fields(hint)] or hint is Report
        return typing.cast(Any, hint)(**{name: _built(hints[name], item) for name, item in value.items()})
    assert type(value) is hint, f"{value!r} is no {hint.__name__}"
    return value
