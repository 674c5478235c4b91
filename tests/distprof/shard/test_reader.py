"""Tests of reading shards: whole records are read, damage is reported, and no content breaks the reader."""

from __future__ import annotations

import io
import itertools
import os
import zlib
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import python
from support.records import patient, shards, written
from support.shards import DATA, END, HEADER_BODY, PLAN, RECORDS, TREE, body, edges, sealed, step

import distprof
from distprof.errors import DataError
from distprof.records import (
    SCHEMA_VERSION,
    End,
    Error,
    ExpertLayer,
    ExpertLayers,
    Header,
    Record,
)
from distprof.shard import compression
from distprof.shard.codec import RecordError
from distprof.shard.compression import compress
from distprof.shard.decoding import RecordCache
from distprof.shard.frames import MAX_BODY_BYTES
from distprof.shard.reader import NotAShard, OtherSchema, parse_shard

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


def test_repeated_and_unordered_records() -> None:
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


def test_newer_minor_version_is_read() -> None:
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


@pytest.mark.parametrize(
    ("schema", "what_to_do"),
    [
        ([1, 1], "merge with distprof 0.1, which reads it"),
        ([2, 1], "merge with distprof 0.1, which reads it"),
        ([4, 1], "merge with the distprof that recorded it"),
    ],
)
def test_another_major_is_refused_in_one_sentence(schema: list[int], what_to_do: str) -> None:
    other = msgpack.packb(["header", 0, {"magic": "distprof", "schema": schema, "who": "knows"}])
    with pytest.raises(OtherSchema) as caught:
        parse_shard(sealed(other), "x.msgpack")
    assert str(caught.value) == (
        f"x.msgpack is of schema {schema[0]}.1, and distprof {distprof.__version__} reads 3.x: {what_to_do}"
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
        (body("header", 0, {"magic": "distprof", "schema": [2]}), "is no distprof shard: its first record is no"),
        (body("header", 0, {"magic": "another", "schema": [1, 0]}), "is no distprof shard: its first record is no"),
        (
            body("header", 0, {"magic": "distprof", "schema": [[[1]], 0]}),
            "is no distprof shard: its first record is no",
        ),
        (
            body("header", 0, {"magic": "distprof", "schema": [3, 0]}),
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
END_FIELDS = {"reason": "exit", "iterations": 1}
END_PAYLOAD = msgpack.packb(END_FIELDS)
EMPTY_TREE = compress(msgpack.packb({"first_row": 0, "rows": []}))


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
        body("end", 1, END_FIELDS)[:-1],
        body("end", 1, END_FIELDS) + b"\x00",
        b"\x94\xa3end\x01" + END_PAYLOAD + b"\x00",
        b"\x92\xa3end\x01",
        b"\x92\xa3end\x01" + END_PAYLOAD,
        b"\x94\xa7wavelet\x01\xc0\xc0",
        body("wavelet", 1, None) + b"\x00",
        body("end", -1, END_FIELDS),
        body("end", 1 << 63, END_FIELDS),
        body("end", True, END_FIELDS),
        body("end", "1", END_FIELDS),
        body("end", None, END_FIELDS),
        body(b"end", 1, END_FIELDS),
        body(1, 1, END_FIELDS),
        body(["end"], 1, END_FIELDS),
        body("", 1, END_FIELDS),
        body("\x1b[2J", 1, END_FIELDS),
        body("e" * 65, 1, END_FIELDS),
        body("end", 1, {"reason": "exit", "iterations": 1, 7: 1}),
        body("end", 1, {"reason": "exit"}),
        body("end", 1, {"reason": "exit", "iterations": float("nan")}),
        b"\x93\xa3end\x01\x82\xa6reason\xa2\xc3\x28\xaaiterations\x01",  # not UTF-8
        b"\x93\xa3end\x01\x82\xa6reason\xa3\xed\xa0\x80\xaaiterations\x01",  # half of a surrogate pair
        b"\x93\xa3end\x01\x83\xa6reason\xa0\xaaiterations\x01\xa1x\xc7\x05\xff12345",  # no timestamp is so long
        body("header", 1, msgpack.unpackb(HEADER_BODY)[2]),
        body("tree", 1, {"first_row": 0, "rows": []}),
        body("tree", 1, b"no zlib"),
        body("tree", 1, EMPTY_TREE[:-1]),
        body("tree", 1, EMPTY_TREE + b"x"),
        body("tree", 1, zlib.compress(b"")),
        body("tree", 1, zlib.compress(msgpack.packb({"first_row": 0, "rows": []}) + b"\x00")),
        body("tree", 1, zlib.compress(NESTED)),
        *(body("tree", 1, zlib.compress(claim)) for claim in CLAIMS),
        body("tree", 1, zlib.compress(bytes(MAX_BODY_BYTES + 1))),
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


def test_of_two_records_with_one_number_the_first_is_read() -> None:
    one, other = (body("end", 1, {"reason": reason, "iterations": 1}) for reason in "ab")
    assert parse_shard(sealed(HEADER_BODY, one, other)).records[1:] == [End("a", 1)]


def test_the_largest_sequence_number_is_just_a_large_gap() -> None:
    report = parse_shard(sealed(HEADER_BODY, body("end", (1 << 63) - 1, {"reason": "", "iterations": 0}))).report
    assert (report.records, report.sequence_gaps) == (2, (1 << 63) - 2)


HOSTILE = """
import resource, struct, sys, zlib
import msgpack, numpy
from distprof.shard.reader import parse_shard
from distprof.shard.frames import checksum, frame
first, before = map(bytes.fromhex, sys.argv[1:3])
limit = 400 << 20
size = 4 << 20
claims = (b"\\xdd" + struct.pack(">I", size - 5000)) * 500 + bytes(size)
body = before + (claims if sys.argv[3] == "plain" else msgpack.packb(zlib.compress(claims)))
data = frame(first, checksum(first)) + frame(body, checksum(body, checksum(first)))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
report = parse_shard(data).report
print(report.records, report.malformed)
"""


@pytest.mark.parametrize(
    ("before", "form"),
    [
        *((before, "plain") for before in (b"\x93", b"\x93\xa3end", b"\x93\xa3end\x01", b"\x93\xa3end\x01\x81\xa1x")),
        (b"\x93\xa4tree\x01", "compressed"),
    ],
)
def test_claimed_lengths_are_checked_against_the_bytes(tmp_path: Path, before: bytes, form: str) -> None:
    """500 nested arrays, each as long as the record, would take 16 GiB if msgpack allocated the claimed lengths."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    result = python("-c", HOSTILE, HEADER_BODY.hex(), before.hex(), form, cwd=tmp_path, env=environment)
    assert result.stderr == ""
    said = "a record of " if form == "plain" else "tree: its compressed payload is not sound msgpack"
    assert result.stdout.startswith(f"1 ['{said}")


def test_compressed_payloads_are_bounded_by_the_length_of_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_BODY_BYTES", 1000)
    stream, inflater = zlib.compress(bytes(900)), compression.Inflater(10)  # 1,640 bytes
    assert inflater.inflate("tree", stream) == bytes(900)
    with pytest.raises(RecordError, match=r"^tree: its compressed payload is too long"):
        inflater.inflate("tree", stream)


def test_records_that_another_zlib_compressed_are_the_same() -> None:
    cache, payload = RecordCache(), msgpack.packb({"first_row": 0, "rows": []})
    one, other = (
        parse_shard(sealed(HEADER_BODY, body("tree", 1, zlib.compress(payload, level))), cache=cache)
        for level in (0, 9)
    )
    assert one.records[1] is other.records[1]


@patient
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    with pytest.raises(DataError):
        parse_shard(data)


# --- cache ---------------------------------------------------------------------------------------------


def test_a_cache_gives_ranks_that_wrote_the_same_the_same_objects() -> None:
    cache = RecordCache()
    layers = ExpertLayers((ExpertLayer("moe", 1, 4, (0,)),))
    first = parse_shard(written([Header("r", 0, 2), PLAN, TREE, layers, END]), cache=cache)
    other_sequences: list[Record] = [Header("r", 1, 2), TREE, layers, Error("x", "y"), END]
    second = parse_shard(written(other_sequences), cache=cache)
    assert first.records[2] is second.records[1]
    assert first.records[3] is second.records[2]
    assert first.records[4] is not second.records[4]
    assert parse_shard(written([Header("r", 0, 2), TREE])).records[1] is not first.records[2]


def test_a_cache_keeps_kinds_apart_and_forgets_what_is_malformed() -> None:
    cache = RecordCache()
    payload = {"first_row": 0, "rows": [], "root": 0, "parameters": []}
    packed = compress(msgpack.packb(payload))
    shard = parse_shard(sealed(HEADER_BODY, body("tree", 1, packed), body("parameters", 2, packed)), cache=cache)
    assert [record.KIND for record in shard.records] == ["header", "tree", "parameters"]
    for _ in range(2):
        empty = compress(msgpack.packb({}))
        assert len(parse_shard(sealed(HEADER_BODY, body("tree", 1, empty)), cache=cache).report.malformed) == 1
