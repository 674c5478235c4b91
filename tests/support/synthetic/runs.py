"""Writes the shards of a synthetic job into a run folder, or into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from support.synthetic.job import RUN_ID, WALL_NS, Job
from support.synthetic.records import rank_records

from distprof.records import Record
from distprof.run_folder import Manifest, RunFolder
from distprof.shard.reader import Shard, parse_shard
from distprof.shard.writer import FileSink, MemorySink, ShardWriter

Bend = Callable[[int, list[Record]], Iterable[Record]]


def write_run(
    folder: Path, *, missing: Iterable[int] = (), bend: Bend | None = None, manifest: bool = True, **job: Any
) -> Path:
    """Writes a run folder of the :class:`Job` of the other arguments, without the shards of the ``missing`` ranks.

    ``bend`` gets a rank and its records, and returns those that are written.  Returns ``folder``.
    """
    made, run = Job(**job), RunFolder(folder)
    run.shards.mkdir(parents=True)
    if manifest:
        run.write_manifest(Manifest(RUN_ID, "demo", ("torchrun", "train.py"), made.world, WALL_NS))
    for rank in sorted(set(range(made.world)) - set(missing)):
        records = rank_records(made, rank)
        write_shard(run.shard_path(rank, 0), bend(rank, records) if bend else records)
    return folder


def write_shard(path: Path, records: Iterable[Record]) -> None:
    sink = FileSink(path)
    writer = ShardWriter(sink)
    for record in records:
        writer.write(record)
    sink.close()


def in_memory(job: Job) -> list[Shard]:
    """Returns the shards of the same run, written and parsed in memory."""
    return [shard_of(rank_records(job, rank)) for rank in range(job.world)]


def shard_of(records: Iterable[Record]) -> Shard:
    sink = MemorySink()
    writer = ShardWriter(sink)
    for record in records:
        writer.write(record)
    return parse_shard(bytes(sink.data))
