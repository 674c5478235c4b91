"""Models too large for one record are written in several, and read as one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distprof.merge.load.rank import RankReader
from distprof.model.record_chunks import parameter_records, tree_records
from distprof.records import Header, ModuleRow, Parameter, Parameters, Record, Tree
from distprof.shard.frames import MAX_BODY_BYTES
from distprof.shard.reader import Shard, parse_shard
from distprof.shard.writer import MemorySink, ShardWriter

#: With the longest names allowed, a record is full before 200,000 parameters, and a chunk after a few thousand.
COUNT, TOO_MANY = 6_000, 40_000
NAMED = "layers.{:0900d}.weight"


def many(count: int = COUNT, root: int = 0) -> list[Parameter]:
    return [Parameter(NAMED.format(i), 0, root, 2, 2, 2, "float32", 4) for i in range(count)]


def written(*records: Record) -> Shard:
    sink = MemorySink()
    writer = ShardWriter(sink)
    for record in (Header("x", 0, 1), *records):
        writer.write(record)
    return parse_shard(bytes(sink.data))


def rank_numel(*records: Record) -> int | None:
    return RankReader().reduce(written(*records), "x").parameters.rank_numel


@pytest.fixture(scope="module")
def chunks() -> list[Parameters]:
    return [*parameter_records(0, many())]


def test_chunks_are_read_as_one(chunks: list[Parameters]) -> None:
    with pytest.raises(ValueError, match="too long for a shard"):
        written(Parameters(0, tuple(many(TOO_MANY))))
    assert len(chunks) > 2
    small = Parameters(1, (Parameter("w", 0, 1, 5, 5, 5, "float32", 4),))
    assert rank_numel(*chunks, small) == 2 * COUNT + 5
    fewer = [*parameter_records(0, many(3))]
    assert fewer == [Parameters(0, tuple(many(3)))]
    assert rank_numel(*chunks, *fewer) == 6  # the last records of a root hold, however many they are
    assert rank_numel(*fewer, *chunks) == 2 * COUNT


@pytest.mark.parametrize("lost", [0, 1, -1])
def test_missing_chunk_makes_no_sum(lost: int, chunks: list[Parameters]) -> None:
    rest = [*chunks]
    del rest[lost]
    small = Parameters(1, (Parameter("w", 0, 1, 5, 5, 5, "float32", 4),))
    assert rank_numel(*rest, small) == 5
    assert rank_numel(*rest) is None


def test_tree_of_long_names() -> None:
    row = ModuleRow("é" * 1000, "Net", 0, -1, 0, "é" * 1000)
    rows = (row, *(replace(row, parent=0, depth=1) for _ in range(MAX_BODY_BYTES // 4000 + 1)))
    with pytest.raises(ValueError, match="too long for a shard"):
        written(Tree(7, rows))
    chunks = [*tree_records(Tree(7, rows))]
    assert sum((piece.rows for piece in chunks), ()) == rows
    assert [piece.first_row for piece in chunks] == [7 + rows.index(chunks[0].rows[0])] + [
        7 + sum(len(before.rows) for before in chunks[:number]) for number in range(1, len(chunks))
    ]
    written(*chunks)
