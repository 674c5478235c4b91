"""Abuse of shards by the hundred thousand: the reader gives what is whole, and says that the rest is not.

    python tools/soak.py --mutations 100000 --seed 1

Three kinds of abuse:

* bytes are flipped, cut, put in, moved, repeated, zeroed, and shards of two runs are spliced;
* records are forged: any value anywhere in them, under a checksum that holds; some of these shards are merged, too;
* a disk fills at any byte of any record (a file size limit in a process of its own), and room is found again or not.

Anything but DataError out of reader and merger fails; so does a record that nobody wrote, a record that is lost though
its bytes are whole, and a loss that the report does not mention.  A failing file is kept, and the last line says how to
meet it again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from distprof.errors import DataError
from distprof.framing import checksum, frame, scan
from distprof.merge.analyse import analyse
from distprof.merge.jsonout import to_json
from distprof.merge.load import run_of_shards
from distprof.merge.text import TextOptions, render
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
from distprof.shard import FileSink, Memo, MemorySink, Shard, ShardWriter, parse_shard

Random = random.Random


@dataclass(frozen=True)
class Original:
    """An undamaged shard: its records, its bytes, and where in them each record begins, and the last one ends."""

    run_id: str
    records: tuple[Record, ...]
    data: bytes
    edges: tuple[int, ...]


def original(run_id: str, rank: int, rows: int) -> Original:
    """One record of every kind at least, as a recorder would write them."""
    records = tuple(_content(run_id, rank, rows))
    sink, edges = MemorySink(), [0]
    writer = ShardWriter(sink)
    for record in records:
        writer.write(record)
        edges.append(len(sink.data))
    return Original(run_id, records, bytes(sink.data), tuple(edges))


def _content(run_id: str, rank: int, rows: int) -> list[Record]:
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
        Header(run_id, rank, 4, host="node", script="train.py"),
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


#: (random numbers, shard, another shard) -> the bytes of a file
Abuse = Callable[[Random, Original, Original], bytes]


# --- bytes ----------------------------------------------------------------------------------------


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 11, 50, rng.randrange(1, len(data)))))


def flip(rng: Random, one: Original, _: Original) -> bytes:
    data = bytearray(one.data)
    for _count in range(rng.choice((1, 1, 1, 2, 10))):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


def truncate(rng: Random, one: Original, _: Original) -> bytes:
    return one.data[: rng.randrange(len(one.data))]


def insert(rng: Random, one: Original, _: Original) -> bytes:
    start = rng.randrange(len(one.data) + 1)
    return one.data[:start] + rng.randbytes(rng.choice((1, 4, 11, 200))) + one.data[start:]


def delete(rng: Random, one: Original, _: Original) -> bytes:
    start, end = _span(rng, one.data)
    return one.data[:start] + one.data[end:]


def zero(rng: Random, one: Original, _: Original) -> bytes:
    start, end = _span(rng, one.data)
    return one.data[:start] + bytes(end - start) + one.data[end:]


def repeat(rng: Random, one: Original, _: Original) -> bytes:
    start, end = _span(rng, one.data)
    place = rng.randrange(len(one.data) + 1)
    return one.data[:place] + one.data[start:end] + one.data[place:]


def repeat_records(rng: Random, one: Original, _: Original) -> bytes:
    start, end = sorted(rng.choices(one.edges, k=2))
    place = rng.choice(one.edges)
    return one.data[:place] + one.data[start:end] + one.data[place:]


def swap_records(rng: Random, one: Original, _: Original) -> bytes:
    a, b, c = sorted(rng.choices(one.edges[1:], k=3))
    return one.data[:a] + one.data[b:c] + one.data[a:b] + one.data[c:]


def splice(rng: Random, one: Original, other: Original) -> bytes:
    return one.data[: rng.randrange(len(one.data) + 1)] + other.data[rng.randrange(len(other.data) + 1) :]


def splice_records(rng: Random, one: Original, other: Original) -> bytes:
    return one.data[: rng.choice(one.edges)] + other.data[rng.choice(other.edges) :]


# --- values ---------------------------------------------------------------------------------------

NASTY: tuple[Callable[[Random], Any], ...] = (
    lambda rng: rng.choice(
        (None, True, -1, 0, 1, 1 << 20, (1 << 20) + 1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    ),
    lambda rng: rng.choice((-(1 << 63), float("nan"), float("inf"), 0.5, "", "x" * 300, b"", b"\0" * 7, b"\xff" * 16)),
    lambda rng: rng.choice(
        ([], {}, [[]], {"name": {}}, [None] * 20, {"": ""}, msgpack.Timestamp(1), msgpack.ExtType(5, b"x"))
    ),
    lambda rng: _nested(rng.choice((3, 100, 300))),
)


def _nested(depth: int) -> Any:
    value: Any = []
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def forge(rng: Random, one: Original, _: Original) -> bytes:
    """Some values of some records are others: of another type, size or depth."""
    values = [msgpack.unpackb(body, strict_map_key=False) for body in scan(one.data).bodies]
    for _count in range(rng.choice((1, 1, 2, 5))):
        value = rng.choice(values)
        while True:
            place = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
            inner = value[place]
            if not isinstance(inner, (list, dict)) or not inner or rng.random() < 0.2:
                break
            value = inner
        value[place] = rng.choice(NASTY)(rng)
    return _sealed([msgpack.packb(value) for value in values])


def forge_bytes(rng: Random, one: Original, _: Original) -> bytes:
    """Some bytes of one record are others: lengths that lie, text that is no text, msgpack that is none."""
    bodies = scan(one.data).bodies
    index = rng.randrange(len(bodies))
    body = bytearray(bodies[index])
    for _count in range(rng.choice((1, 1, 3))):
        start = rng.randrange(len(body))
        body[start : start + 1] = rng.choice(
            (rng.randbytes(1), b"", b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc1")
        )
        body = body or bytearray(1)
    bodies[index] = bytes(body)
    return _sealed(bodies)


def forge_numbers(rng: Random, one: Original, _: Original) -> bytes:
    """Sequence numbers are any at all."""
    values = [msgpack.unpackb(body) for body in scan(one.data).bodies]
    for value in rng.sample(values, 3):
        value[1] = rng.choice((0, 1, 5, 1 << 40, (1 << 63) - 1, 1 << 63, -1))
    return _sealed([msgpack.packb(value) for value in values])


def _sealed(bodies: list[bytes]) -> bytes:
    first = checksum(bodies[0])
    return b"".join(frame(body, checksum(body, first) if number else first) for number, body in enumerate(bodies))


BYTES: tuple[Abuse, ...] = (
    flip,
    truncate,
    insert,
    delete,
    zero,
    repeat,
    repeat_records,
    swap_records,
    splice,
    splice_records,
)
VALUES: tuple[Abuse, ...] = (forge, forge_bytes, forge_numbers)


# --- what must hold -------------------------------------------------------------------------------


def judge(data: bytes, originals: dict[str, Original]) -> str:
    """How the reader took a file whose records are those of ``originals``.  Raises AssertionError when it was wrong."""
    shard = _read(data)
    if shard is None:
        headers = [written.data[: written.edges[1]] for written in originals.values()]
        assert not any(header in data for header in headers), "a shard with a whole header was refused"
        return "refused"
    written = originals[shard.header.run_id]
    for sequence, record in zip(shard.sequences, shard.records, strict=True):
        assert record == written.records[sequence], f"record {sequence} is not what was written"
    for sequence, record in enumerate(written.records):
        whole = written.data[written.edges[sequence] : written.edges[sequence + 1]] in data
        assert not whole or sequence in shard.sequences, f"{record.KIND} {sequence} is whole and was not read"
    assert not shard.report.malformed, shard.report.malformed
    if len(shard.records) == len(written.records):
        return "all read"
    # A killed writer leaves a file that ends where a record does: nothing in it shows that more was to come.
    assert shard.report.damaged or data in (written.data[:edge] for edge in written.edges), "a loss was not reported"
    return "read in part"


def judge_forged(data: bytes, rng: Random) -> str:
    """Whatever is read is sound: it can be written, and read again, and is the same; some of it is merged."""
    shard = _read(data)
    if shard is None:
        return "refused"
    sink = MemorySink()
    writer = ShardWriter(sink)
    for record in shard.records:
        writer.write(record)
    again = parse_shard(bytes(sink.data), "again", Memo())
    assert not again.report.damaged
    assert again.records == shard.records, "a record changed when it was written again"
    if rng.random() < MERGED_SHARE:
        _merge(shard)
    return "read in part" if shard.report.damaged else "all read"


def _merge(shard: Shard) -> None:
    """Make a report of it and two sound ranks."""
    others = [parse_shard(original(shard.header.run_id, rank, 4).data) for rank in (0, 2)]
    with contextlib.suppress(DataError):
        report = analyse(run_of_shards([shard, *others]))
        json.loads(to_json(report))
        render(report, TextOptions())


def _read(data: bytes) -> Shard | None:
    try:
        return parse_shard(data, "soak", Memo())
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 400, "the sentence is no sentence"
        return None


# --- a full disk ----------------------------------------------------------------------------------


def fill_disk(rng: Random, one: Original, _: Original) -> bytes:
    """A writer meets a full disk; some records later it may find room again, then the shard goes on."""
    limit, until = rng.randrange(one.edges[1], len(one.data)), rng.randrange(1, len(one.records) + 1)
    return _written_under_limit(one, limit, until)


def fill_disk_at_once(rng: Random, one: Original, _: Original) -> bytes:
    """There is no room for the header: nothing may be left behind, and nothing else can be written."""
    data = _written_under_limit(one, rng.randrange(one.edges[1]), len(one.records))
    assert not data, "a piece of a header was left behind"
    return data


def _written_under_limit(one: Original, limit: int, until: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard")
        child = os.fork()
        if not child:
            os._exit(_write_under_limit(one, path, limit, until))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the writer broke"
        return path.read_bytes()


def _write_under_limit(one: Original, path: Path, limit: int, until: int) -> int:
    """The exit code: 0 when every record was written or refused with an OSError."""
    try:
        writer = ShardWriter(FileSink(path))
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        for number, record in enumerate(one.records):
            if number == until:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            try:
                writer.write(record)
            except OSError:
                if number == 0:
                    return 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


# --- the loop -------------------------------------------------------------------------------------

DISK: tuple[Abuse, ...] = (fill_disk, fill_disk_at_once)
ABUSES = BYTES * 3 + VALUES * 5
#: A full disk takes a process, the rest does not.
DISK_EVERY = 100
#: So many of the forged shards are merged, too.
MERGED_SHARE = 0.05


def soak(numbers: Iterable[int], seconds: float, seed: int) -> int:
    """Abuse ``numbers`` times, or for so many ``seconds``; the exit code."""
    originals = [original("run-a", 1, 4), original("run-b", 2, 40), original("run-c", 3, 2)]
    tally: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    for number in numbers:
        if time.monotonic() - started > seconds:
            break
        rng = Random(f"{seed}:{number}")
        abuse = rng.choice(DISK if number % DISK_EVERY == 0 else ABUSES)
        verdict = _try(abuse, rng, originals)
        if verdict is None:
            print(f"{abuse.__name__} failed: again with --seed {seed} --first {number} --mutations 1")
            return 1
        tally[abuse.__name__, verdict] += 1
    _show(tally, time.monotonic() - started)
    return 0


def _try(abuse: Abuse, rng: Random, originals: list[Original]) -> str | None:
    data = b""
    try:
        one, other = rng.sample(originals, 2)
        data = abuse(rng, one, other)
        if abuse in VALUES:
            return judge_forged(data, rng)
        return judge(data, {written.run_id: written for written in (one, other)})
    except BaseException:
        traceback.print_exc()
        file = Path(tempfile.mkdtemp(prefix="distprof-soak-"), "failed.msgpack")
        file.write_bytes(data)
        print(f"the file is kept: {file}")
        return None


def _show(tally: Counter[tuple[str, str]], seconds: float) -> None:
    verdicts = ("all read", "read in part", "refused")
    print(f"{'':20}" + "".join(f"{verdict:>14}" for verdict in verdicts))
    for name in sorted({name for name, _ in tally}):
        print(f"{name:20}" + "".join(f"{tally[name, verdict]:14,}" for verdict in verdicts))
    print(f"{tally.total():,} shards in {seconds:.0f} s: nothing but DataError, no wrong record, no silent loss")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000, metavar="N")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="stop after this time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first mutation")
    options = parser.parse_args()
    return soak(range(options.first, options.first + options.mutations), options.seconds, options.seed)


if __name__ == "__main__":
    sys.exit(main())
