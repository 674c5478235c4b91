"""Shards: every record that is whole is read, what is not is reported, and nothing in a file breaks the reader."""

from __future__ import annotations

import io
import itertools
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.codec import RecordError
from distprof.errors import DataError
from distprof.framing import MAX_BODY_BYTES, checksum, frame, scan
from distprof.records import (
    SCHEMA_VERSION,
    End,
    Error,
    ExpertLayer,
    ExpertLayers,
    ExpertLoad,
    Header,
    ModuleRow,
    Plan,
    Record,
    Step,
    Tree,
)
from distprof.shard import FileSink, Memo, MemorySink, NewerSchema, NotAShard, ShardWriter, parse_shard, read_shard
from tests.support.records import patient, shards, written

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
    """Where each record of an undamaged shard begins, and the last one ends."""
    return [0, *np.cumsum([11 + len(body) for body in scan(data).bodies]).tolist()]


def sealed(*bodies: bytes) -> bytes:
    """A shard of any bodies, under checksums that hold."""
    first = checksum(bodies[0])
    return b"".join(frame(body, checksum(body, first) if n else first) for n, body in enumerate(bodies))


def body(kind: object, sequence: object, payload: object) -> bytes:
    packed: bytes = msgpack.packb([kind, sequence, payload])
    return packed


HEADER_BODY = body("header", 0, {"magic": "distprof", "schema": [1, 0], "run_id": "r", "rank": 0, "world_size": 1})


# --- what is whole -----------------------------------------------------------------------------------


@patient
@given(shards())
def test_what_was_written_is_read(shard: tuple[list[Record], bytes]) -> None:
    content, data = shard
    read = parse_shard(data)
    assert read.records == content
    assert read.sequences == list(range(len(content)))
    assert read.header == content[0]
    assert not read.report.damaged
    assert read.report.records == len(content)


def test_any_msgpack_library_reads_the_stream() -> None:
    first = 0
    for number, (check, packed) in enumerate(msgpack.Unpacker(io.BytesIO(DATA))):
        assert zlib.crc32(packed, first) == check
        first = first or check
        kind, sequence, _ = msgpack.unpackb(packed)
        assert (kind, sequence) == (RECORDS[number].KIND, number)
    assert number == len(RECORDS) - 1


def test_every_prefix_reads_to_its_last_whole_record() -> None:
    ends = edges(DATA)
    for length in range(len(DATA)):
        whole = sum(end <= length for end in ends[1:])
        if not whole:
            with pytest.raises(NotAShard):
                parse_shard(DATA[:length])
            continue
        shard = parse_shard(DATA[:length])
        assert shard.records == RECORDS[:whole]
        assert shard.report.unread_bytes == length - ends[whole]
        assert shard.report.unread_why == ("the last record is torn" if length > ends[whole] else "")


def test_every_flipped_byte_is_noticed_and_costs_its_record() -> None:
    ends = edges(DATA)
    for place in range(ends[1], len(DATA)):
        for mask in (0x01, 0x80, 0xFF):
            bent = bytearray(DATA)
            bent[place] ^= mask
            shard = parse_shard(bytes(bent))
            hit = sum(end <= place for end in ends[1:])
            assert shard.records == [record for number, record in enumerate(RECORDS) if number != hit]
            assert shard.report.damaged
            assert shard.report.unread_bytes == ends[hit + 1] - ends[hit]


def test_a_flipped_byte_in_the_header_says_so() -> None:
    for place in range(edges(DATA)[1]):
        bent = bytearray(DATA)
        bent[place] ^= 0x10
        with pytest.raises(NotAShard, match=r"^some.shard has a torn or damaged header: "):
            parse_shard(bytes(bent), "some.shard")


@patient
@given(shards(), st.data())
def test_lost_records_are_counted(shard: tuple[list[Record], bytes], data: st.DataObject) -> None:
    content, whole = shard
    ends = edges(whole)
    kept = [0, *sorted(data.draw(st.sets(st.integers(1, len(content) - 1)) if len(content) > 1 else st.just(set())))]
    read = parse_shard(b"".join(whole[ends[n] : ends[n + 1]] for n in kept))
    assert read.records == [content[n] for n in kept]
    assert read.sequences == kept
    assert read.report.sequence_gaps == kept[-1] + 1 - len(kept)


def test_damage_at_several_places_is_counted_and_named() -> None:
    ends = edges(DATA)
    bent = bytearray(DATA[:-1])
    bent[ends[1] + 20] ^= 1
    bent[ends[3] + 20] ^= 1
    shard = parse_shard(bytes(bent))
    assert shard.sequences == [0, 2, 4]
    assert shard.report.unread_why == "2 places are damaged and the last record is torn"
    assert shard.report.sequence_gaps == 2  # the torn one never counted as numbered


def test_records_that_are_there_twice_or_out_of_order_are_read_once_and_in_order() -> None:
    ends = edges(DATA)
    pieces = [DATA[start:end] for start, end in itertools.pairwise(ends)]
    shard = parse_shard(b"".join(pieces[n] for n in (0, 3, 1, 4, 2, 1, 5, 3)))
    assert shard.records == RECORDS
    assert (shard.report.repeated, shard.report.damaged) == (2, False)


def test_bytes_before_the_header_are_passed_over() -> None:
    shard = parse_shard(b"\n\x92\xce" + DATA)
    assert shard.records == RECORDS
    assert (shard.report.unread_bytes, shard.report.unread_why) == (3, "a record is damaged")


@pytest.mark.parametrize("other_run", ["another-run", "the-run"])
def test_records_of_another_shard_are_never_taken_for_this_ones(other_run: str) -> None:
    other = written([Header(other_run, 4, 8), PLAN, TREE, step(6), step(7), step(8), END])
    run_together = parse_shard(DATA + other)
    assert run_together.records == RECORDS
    assert run_together.report.unread_bytes == len(other)
    place = edges(DATA)[3]
    resumed = parse_shard(DATA[:place] + other[place:])
    assert resumed.records == RECORDS[:3]
    assert resumed.report.damaged


# --- what is not a record, or not ours -----------------------------------------------------------------


def test_unknown_kinds_and_fields_of_a_newer_minor_are_passed_over() -> None:
    newer = msgpack.unpackb(HEADER_BODY)
    newer[2] |= {"schema": [SCHEMA_VERSION[0], 99], "flavour": "new"}
    shard = parse_shard(
        sealed(
            msgpack.packb(newer),
            body("wavelet", 1, {"x": [1]}),
            body("wavelet", 2, None),
            body("end", 3, {"reason": "exit", "iterations": 2, "mood": "good"}),
        )
    )
    assert shard.records[1:] == [End("exit", 2)]
    assert shard.report.unknown_kinds == {"wavelet": 2}
    assert not shard.report.damaged


def test_a_newer_major_is_refused_in_one_sentence() -> None:
    future = msgpack.packb(["header", 0, {"magic": "distprof", "schema": [2, 3], "who": "knows"}])
    with pytest.raises(NewerSchema) as caught:
        parse_shard(sealed(future), "x.msgpack")
    assert str(caught.value) == (
        "x.msgpack was written in schema 2.3, this distprof reads up to 1.x: "
        "merge with the distprof that recorded it, or a newer one"
    )


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (
            body("plan", 0, {"warmup": 1, "counted": 1, "timed": 1}),
            "is no distprof shard: its first record is no header",
        ),
        (body("header", 0, {}), "is no distprof shard: its first record is no distprof header"),
        (body("header", 0, []), "is no distprof shard: its first record is no distprof header"),
        (body("header", 0, {"magic": "distprof", "schema": [True, 0]}), "is no distprof shard: its first record is no"),
        (
            body("header", 0, {"magic": "distprof", "schema": [[[1]], 0]}),
            "is no distprof shard: its first record is no",
        ),
        (
            body("header", 0, {"magic": "distprof", "schema": [1, 0]}),
            "has a header that cannot be: header: field 'run_id'",
        ),
        (
            HEADER_BODY.replace(b"\xa4rank\x00", b"\xa4rank\x01"),
            "has a header that cannot be: header: rank 1 is not in a",
        ),
        (
            HEADER_BODY.replace(b"\xa4rank\x00", b"\xa4rank\xff"),
            "has a header that cannot be: header.rank: -1 is not in",
        ),
        (b"\xc1", "is no distprof shard: its first record is no header"),
    ],
)
def test_a_header_that_is_none_is_refused(first: bytes, why: str) -> None:
    with pytest.raises(NotAShard) as caught:
        parse_shard(sealed(first), "x")
    assert str(caught.value).startswith(f"x {why}")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty: its rank ended before it wrote anything"),
        (b"PK\x03\x04" * 9, "is no distprof shard: it does not begin with a header"),
        (DATA[:40], "has a torn or damaged header: without its rank and its run nothing in it can be placed"),
    ],
)
def test_a_file_without_a_header_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(NotAShard) as caught:
        parse_shard(data, "x")
    assert str(caught.value) == f"x {why}"


NESTED = b"\x91" * 5000 + b"\xc0"
CLAIMS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
]
END_PAYLOAD = msgpack.packb({"reason": "exit", "iterations": 1})


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        b"\xc0",
        b"\x93",
        b"\xc1",
        *CLAIMS,
        NESTED,
        b"\x93" + NESTED + b"\x01\x80",
        *(b"\x93" + claim + b"\x01\x80" for claim in CLAIMS),
        *(b"\x93\xa3end\x01" + claim for claim in CLAIMS),
        b"\x93\xa3end\x01" + NESTED,
        b"\x93\xa3end\x01" + b"\x81\xa1a" * 600 + b"\xc0",
        body("end", 1, {"reason": "exit", "iterations": 1})[:-1],
        body("end", 1, {"reason": "exit", "iterations": 1}) + b"\x00",
        b"\x94\xa3end\x01" + END_PAYLOAD + b"\x00",
        b"\x92\xa3end\x01",
        body("end", -1, {}),
        body("end", 1 << 63, {}),
        body("end", True, {}),
        body("end", "1", {}),
        body("end", None, {}),
        body(b"end", 1, {}),
        body(1, 1, {}),
        body(["end"], 1, {}),
        body("", 1, {}),
        body("\x1b[2J", 1, {}),
        body("e" * 65, 1, {}),
        body("end", 1, {"reason": "exit", "iterations": 1, 7: 1}),
        body("end", 1, {"reason": "exit"}),
        body("end", 1, {"reason": "exit", "iterations": float("nan")}),
        b"\x93\xa3end\x01\x82\xa6reason\xa2\xc3\x28\xaaiterations\x01",  # not UTF-8
        b"\x93\xa3end\x01\x82\xa6reason\xa3\xed\xa0\x80\xaaiterations\x01",  # half of a surrogate pair
        b"\x93\xa3end\x01\x83\xa6reason\xa0\xaaiterations\x01\xa1x\xc7\x05\xff12345",  # no timestamp is so long
        body("header", 1, msgpack.unpackb(HEADER_BODY)[2]),
    ],
)
def test_a_malformed_record_costs_itself_alone(malformed: bytes) -> None:
    shard = parse_shard(sealed(HEADER_BODY, malformed, body("end", 2, {"reason": "exit", "iterations": 1})))
    assert shard.records[1:] == [End("exit", 1)]
    assert len(shard.report.malformed) == 1
    assert len(shard.report.malformed[0]) < 200
    assert shard.report.damaged


def test_a_key_that_is_there_twice_has_its_last_value() -> None:
    twice = b"\x93\xa3end\x01\x83\xa6reason\xa1a\xaaiterations\x01\xa6reason\xa1b"
    assert parse_shard(sealed(HEADER_BODY, twice)).records[1:] == [End("b", 1)]


def test_the_largest_sequence_number_is_just_a_large_gap() -> None:
    report = parse_shard(sealed(HEADER_BODY, body("end", (1 << 63) - 1, {"reason": "", "iterations": 0}))).report
    assert (report.records, report.sequence_gaps) == (2, (1 << 63) - 2)


HOSTILE = """
import resource, struct, sys
import msgpack, numpy
from distprof.shard import parse_shard
from distprof.framing import checksum, frame
limit = 400 << 20
size = 4 << 20
body = b"\\x93\\xa3end\\x01" + (b"\\xdd" + struct.pack(">I", size - 5000)) * 500 + bytes(size)
data = HEADER + frame(body, checksum(body, FIRST))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
report = parse_shard(data).report
print(report.records, report.malformed)
"""


def test_claimed_lengths_are_not_believed_before_the_bytes_are_seen(tmp_path: Path) -> None:
    """500 nested arrays, each as long as the record, would take 16 GiB if msgpack made room for what they claim."""
    script = HOSTILE.replace("HEADER", repr(sealed(HEADER_BODY))).replace("FIRST", str(checksum(HEADER_BODY)))
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert result.stdout.startswith("1 ['a record of ")


def frames_that_lie(length: int, size: int) -> bytes:
    """As many frames as possible, each claiming ``length`` bytes that are there, none with a checksum that holds."""
    return struct.pack(">BBIBI", 0x92, 0xCE, 0xDEADBEEF, 0xC6, length) * (size // 11)


@pytest.mark.parametrize("length", [0, 11, 1000, 1 << 19])
def test_searching_damage_takes_time_in_proportion_to_the_file(length: int) -> None:
    data = DATA + frames_that_lie(length, 1 << 20)
    started = time.process_time()
    report = parse_shard(data).report
    assert time.process_time() - started < 2  # all of them, in full: 50 GB of checksums in the last case
    assert report.unread_bytes == len(data) - len(DATA)
    assert ("given up" in report.unread_why) == (length >= 1000)


def test_a_search_that_was_given_up_says_so() -> None:
    data = DATA + frames_that_lie(1 << 19, 1 << 20) + DATA
    assert parse_shard(data).report.unread_why == "a record is damaged, and the search for more was given up"


@patient
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    with pytest.raises(DataError):
        parse_shard(data)


# --- memo ----------------------------------------------------------------------------------------------


def test_a_memo_gives_ranks_that_wrote_the_same_the_same_objects() -> None:
    memo = Memo()
    layers = ExpertLayers((ExpertLayer("moe", 1, 4, (0,)),))
    first = parse_shard(written([Header("r", 0, 2), PLAN, TREE, layers, END]), memo=memo)
    second = parse_shard(written([Header("r", 1, 2), TREE, layers, Error("x", "y"), END]), memo=memo)  # other sequences
    assert first.records[2] is second.records[1]
    assert first.records[3] is second.records[2]
    assert first.records[4] is not second.records[4]
    assert parse_shard(written([Header("r", 0, 2), TREE])).records[1] is not first.records[2]


def test_a_memo_keeps_kinds_apart_and_forgets_what_is_malformed() -> None:
    memo = Memo()
    payload = {"first_row": 0, "rows": [], "root": 0, "parameters": []}
    shard = parse_shard(sealed(HEADER_BODY, body("tree", 1, payload), body("parameters", 2, payload)), memo=memo)
    assert [record.KIND for record in shard.records] == ["header", "tree", "parameters"]
    for _ in range(2):
        assert len(parse_shard(sealed(HEADER_BODY, body("tree", 1, {})), memo=memo).report.malformed) == 1


# --- writing -------------------------------------------------------------------------------------------


def test_a_shard_has_one_header_which_comes_first() -> None:
    writer = ShardWriter(MemorySink())
    with pytest.raises(ValueError, match="one header, which comes first: this is 'plan'"):
        writer.write(PLAN)
    writer.write(HEADER)
    with pytest.raises(ValueError, match="one header"):
        writer.write(HEADER)


def test_text_that_is_no_unicode_is_escaped() -> None:
    name = os.fsdecode(b"caf\xe9.py")
    assert parse_shard(written([Header("r", 0, 1, script=name)])).header.script == "caf\\udce9.py"


def test_what_no_reader_would_take_is_not_written() -> None:
    writer = ShardWriter(sink := MemorySink())
    writer.write(HEADER)
    with pytest.raises(ValueError, match="too long for a shard"):
        writer.write(Error("x", "y" * MAX_BODY_BYTES))
    with pytest.raises(RecordError):
        writer.write(ExpertLoad(1, np.array([0.5])))
    writer.write(END)
    shard = parse_shard(bytes(sink.data))
    assert (shard.records, shard.report.damaged) == ([HEADER, END], False)


def test_a_file_is_created_and_never_reopened(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    writer = ShardWriter(FileSink(path))
    for record in RECORDS:
        writer.write(record)
    writer.close()
    writer.close()
    assert path.read_bytes() == DATA
    assert read_shard(path).source == str(path)
    with pytest.raises(FileExistsError):
        FileSink(path)


def test_each_record_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: lengths.append(len(data)) or write(fd, data))  # type: ignore[func-returns-value]
    writer = ShardWriter(FileSink(tmp_path / "shard"))
    for record in RECORDS:
        writer.write(record)
    assert lengths == np.diff(edges(DATA)).tolist()


class NarrowSink(MemorySink):
    """Has no room for some writes."""

    def __init__(self, refused: Sequence[int]) -> None:
        super().__init__()
        self._refused = refused
        self._writes = 0

    def write(self, data: bytes) -> None:
        self._writes += 1
        if self._writes - 1 in self._refused:
            raise OSError(28, "No space left on device")
        super().write(data)


def test_a_record_that_found_no_room_is_a_gap() -> None:
    writer = ShardWriter(sink := NarrowSink([2]))
    for record in RECORDS[:2]:
        writer.write(record)
    with pytest.raises(OSError, match="No space"):
        writer.write(TREE)
    writer.write(END)
    shard = parse_shard(bytes(sink.data))
    assert (shard.records, shard.sequences) == ([HEADER, PLAN, END], [0, 1, 3])
    assert shard.report.sequence_gaps == 1


def test_a_header_that_found_no_room_may_be_written_again() -> None:
    writer = ShardWriter(sink := NarrowSink([0]))
    with pytest.raises(OSError, match="No space"):
        writer.write(HEADER)
    writer.write(HEADER)
    writer.write(END)
    shard = parse_shard(bytes(sink.data))
    assert (shard.records, shard.report.damaged) == ([HEADER, END], False)


KILLED = """
import resource, sys
from distprof.records import Error, Header
from distprof.shard import FileSink, ShardWriter
from pathlib import Path
writer = ShardWriter(FileSink(Path("shard")))
writer.write(Header("the-run", 0, 1))
for number in range(10**9):
    writer.write(Error(str(number), "x" * 5000))
    if number == 20:
        print("going", flush=True)
"""


def test_a_killed_writer_leaves_all_but_its_last_record(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"going\n"
        while_it_runs = read_shard(tmp_path / "shard")
        process.send_signal(signal.SIGKILL)
    shard = read_shard(tmp_path / "shard")
    assert 20 < len(while_it_runs.records) <= len(shard.records)
    assert [record.where for record in shard.records[1:] if isinstance(record, Error)] == [
        str(number) for number in range(len(shard.records) - 1)
    ]
    assert shard.report.unread_why in ("", "the last record is torn")
    assert (shard.report.sequence_gaps, shard.report.malformed) == (0, [])


def test_a_full_disk_leaves_no_piece_of_a_record(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        try:
            writer = ShardWriter(FileSink(tmp_path / "shard"))
            writer.write(HEADER)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            try:
                writer.write(Error("too", "long" * 1000))
            except OSError:
                writer.write(END)
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shard = read_shard(tmp_path / "shard")
    assert (shard.records, shard.report.sequence_gaps, shard.report.unread_bytes) == ([HEADER, END], 1, 0)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAShard, match=r"pipe is no distprof shard: it is no regular file$"):
        read_shard(tmp_path / "pipe")


# --- the abuse -----------------------------------------------------------------------------------------


def test_a_small_share_of_the_soak(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    soak = request.config.rootpath / "tools" / "soak.py"
    result = subprocess.run(
        [
            sys.executable,
            "-P" if sys.version_info >= (3, 11) else "-B",
            str(soak),
            "--mutations",
            "3000",
            "--seed",
            "7",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "3,000 shards in " in result.stdout
