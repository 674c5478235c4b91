"""Checks the reading of a damaged file: whole records must be read, and damage must be reported."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

from distprof.errors import DataError
from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.load.run import run_of_shards
from distprof.merge.text import TextOptions, render
from distprof.shard.decoding import RecordCache
from distprof.shard.reader import Shard, parse_shard
from distprof.shard.writer import MemorySink, ShardWriter
from soak.originals import Original, original

ALL, PART, REFUSED = VERDICTS = ("all read", "read in part", "refused")


def judge(data: bytes, originals: Iterable[Original]) -> str:
    """Returns the verdict on a file with records of ``originals``.  Raises AssertionError if the reader was wrong."""
    by_run = {written.run_id: written for written in originals}
    shard = _read(data)
    if shard is None:
        headers = [written.data[: written.edges[1]] for written in by_run.values()]
        assert not any(header in data for header in headers), "a shard with a whole header was refused"
        return REFUSED
    written = by_run[shard.header.run_id]
    for sequence, record in zip(shard.sequences, shard.records, strict=True):
        assert record == written.records[sequence], f"record {sequence} is not what was written"
    for sequence, record in enumerate(written.records):
        whole = written.data[written.edges[sequence] : written.edges[sequence + 1]] in data
        assert not whole or sequence in shard.sequences, f"{record.KIND} {sequence} is whole and was not read"
    assert not shard.report.malformed, shard.report.malformed
    if len(shard.records) == len(written.records):
        return ALL
    # A killed writer leaves a file that ends where a record does: nothing in it shows that more was to come.
    assert shard.report.damaged or data in (written.data[:edge] for edge in written.edges), "a loss was not reported"
    return PART


def judge_forged(data: bytes, *, merged: bool) -> str:
    """Checks that all records that were read can be written and read again unchanged, and merged if ``merged``."""
    shard = _read(data)
    if shard is None:
        return REFUSED
    sink = MemorySink()
    writer = ShardWriter(sink)
    for record in shard.records:
        writer.write(record)
    again = parse_shard(bytes(sink.data), "again", RecordCache())
    assert not again.report.damaged
    assert again.records == shard.records, "a record changed when it was written again"
    if merged:
        _merge(shard)
    return PART if shard.report.damaged else ALL


def _merge(shard: Shard) -> None:
    """Makes a report of the shard and two undamaged ranks."""
    others = [parse_shard(original(shard.header.run_id, rank, 4).data) for rank in (0, 2)]
    with contextlib.suppress(DataError):
        report = analyse(run_of_shards([shard, *others]))
        json.loads(to_json(report))
        render(report, TextOptions())


def _read(data: bytes) -> Shard | None:
    try:
        return parse_shard(data, "soak", RecordCache())
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 400, "the sentence is no sentence"
        return None
