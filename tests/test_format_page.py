"""Tests docs/FORMAT.md against the code: every kind, field, type, default and limit, and the page's reader."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import typing
import zlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import patient, shards, written
from support.shards import DATA, edges
from support.shards import RECORDS as SMALL

import distprof
from distprof.records import (
    AXES,
    FORWARD,
    INT64,
    LIMIT,
    MAX_DEPTH,
    PHASES,
    RECORDS,
    SCHEMA_HISTORY,
    SCHEMA_VERSION,
    TRAINING,
    Bounds,
    Counts,
    DeviceWork,
    ExpertLayer,
    Generated,
    Group,
    Header,
    LayerCalls,
    LayerRouting,
    Mesh,
    ModuleRow,
    OpRow,
    OwnAxes,
    Parameter,
    RouterFigures,
    Stage,
    Step,
    Suspect,
)
from distprof.run_folder import RunFolder
from distprof.shard.codec import to_json, to_payload
from distprof.shard.frames import MAX_BODY_BYTES, MAX_SHARD_BYTES
from distprof.shard.reader import parse_shard

HOUSE = Path(__file__).parent.parent
PAGE = (HOUSE / "docs" / "FORMAT.md").read_text(encoding="utf-8")
SOURCES = Path(distprof.__file__).parent
NESTED = {
    record.__name__: record
    for record in (
        *(ModuleRow, Parameter, Mesh, Group, Stage, OwnAxes),
        *(ExpertLayer, Suspect, LayerCalls, LayerRouting, RouterFigures, DeviceWork, Generated, OpRow),
    )
}
DESCRIBED: dict[str, type] = {**RECORDS, **NESTED}
TYPES = {"int": INT64, "natural": Bounds(0, INT64.high), "index": Bounds(0, LIMIT - 1), "size": Bounds(1, LIMIT)}
TYPES |= {"row": Bounds(-1, LIMIT - 1), "amount": Bounds(0, 10**40 - 1)}
NAMES = {bounds: name for name, bounds in TYPES.items()}

Row = list[str]


def section(title: str) -> str:
    """Returns the text below a heading, to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"the page has no section {title!r}"
    return found[2]


def table(title: str) -> list[Row]:
    """Returns the cells of a section's first table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(block)


def type_name(field: dataclasses.Field[Any], hint: Any) -> str:
    if "dtype" in field.metadata:
        if field.metadata["rounded"]:
            return "rounded <f4"
        return f"{'amounts' if field.metadata['amounts'] else 'array of'} {field.metadata['dtype']}"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return f"list of {type_name(field, arguments[0])}"
    if origin is dict:
        return f"map to {type_name(field, arguments[1])}"
    if origin is typing.Annotated:
        return NAMES[arguments[1]]
    return {str: "text", bool: "bool", int: "int"}.get(hint, getattr(hint, "__name__", ""))


def default(field: dataclasses.Field[Any]) -> str:
    if "dtype" in field.metadata:
        return "empty"
    if field.default_factory is not dataclasses.MISSING:
        return json.dumps(field.default_factory())
    return "" if field.default is dataclasses.MISSING else json.dumps(field.default)


def test_the_page_describes_every_record_and_no_other() -> None:
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert sorted(heading.strip("`") for heading in headings) == sorted(DESCRIBED)
    assert [heading for heading in headings if heading.startswith("`")] == [
        f"`{heading.strip('`')}`" for heading in headings if heading.strip("`") in RECORDS
    ]


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_page_describes_every_field_and_no_other(name: str) -> None:
    record = DESCRIBED[name]
    hints = typing.get_type_hints(record, include_extras=True)
    expected = [
        [f"`{field.name}`", type_name(field, hints[field.name]), default(field)] for field in dataclasses.fields(record)
    ]
    assert [row[:3] for row in table(f"`{name}`" if name in RECORDS else name)] == expected


def test_the_page_names_the_schema_and_its_history() -> None:
    assert PAGE.startswith(f"# The shard format, schema {SCHEMA_VERSION[0]}.{SCHEMA_VERSION[1]}\n")
    history = [[f"{major}.{minor}", what] for (major, minor), what in sorted(SCHEMA_HISTORY.items())]
    assert table("Versions") == history


def test_the_page_gives_the_range_of_every_type() -> None:
    rows = {row[0]: row[2].replace("\u2212", "-") for row in table("Types")}
    for name, bounds in TYPES.items():
        assert rows[name].split(":")[0] == f"{bounds.low} to {bounds.high}"
    dtypes = {field.metadata["dtype"] for r in DESCRIBED.values() for field in dataclasses.fields(r) if field.metadata}
    assert {name.removeprefix("array of ") for name in rows if name.startswith("array")} == dtypes
    of_amounts = {
        field.metadata["dtype"]
        for f in DESCRIBED.values()
        for field in dataclasses.fields(f)
        if field.metadata.get("amounts")
    }
    assert {name.removeprefix("amounts ") for name in rows if name.startswith("amounts ")} == of_amounts
    assert {"text", "bool", "list of …", "map to …"} < rows.keys()


def test_the_page_gives_the_limits() -> None:
    assert f"length of the body, at most {MAX_BODY_BYTES} |" in section("Frames")
    assert f"no writer makes a shard longer than {MAX_SHARD_BYTES} bytes" in " ".join(PAGE.split())
    assert f"at most {MAX_DEPTH}; 0 for a root" in section("ModuleRow")
    assert f"together at most {LIMIT} " in section("`tree`")
    assert f"with {LIMIT} experts at most" in section("`expert_layers`")


def test_the_page_gives_the_words() -> None:
    def listed(words: tuple[str, ...]) -> str:
        return ", ".join(f"`{word}`" for word in words)

    assert listed(PHASES) in section("`step`")
    assert listed(AXES) in section("`topology`")
    assert f"is `{TRAINING}` (" in section("Types")
    assert f"or `{FORWARD}` (" in section("Types")


def test_the_page_names_a_shard_as_run_folders_do() -> None:
    assert f"`{RunFolder(Path('runs/NAME')).shard_path(3, 0)}`" in section("Files")


def test_the_page_names_nothing_that_the_code_does_not() -> None:
    prose = re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    words = {word for quoted in re.findall(r"`([^`\n]+)`", prose) for word in re.findall(r"[A-Za-z_]{2,}\d*", quoted)}
    modules = [SOURCES / f"{name}.py" for name in ("run_folder", "commands/dump")]
    modules += [
        file
        for package in ("shard", "records", "frameworks", "topology", "model")
        for file in (SOURCES / package).glob("*.py")
    ]
    sources = " ".join(module.read_text(encoding="utf-8") for module in modules)
    of_msgpack_and_python = {"ce", "crc", "py", "SHARD", "distprof", "float32", "first_checksum"}
    assert {word for word in words - of_msgpack_and_python if not re.search(rf"\b{word}\b|_{word}\b", sources)} == set()


def example() -> bytes:
    return bytes.fromhex("".join(line.split("#")[0] for line in code("hex").splitlines()))


def test_the_example_is_what_it_says() -> None:
    shard = parse_shard(example())
    assert not shard.report.damaged
    assert (shard.header.run_id, shard.header.rank, shard.header.world_size) == ("demo", 0, 1)
    dumped = json.loads(code("json"))
    assert dumped == {"kind": "expert_load", "sequence": 1, **to_json(shard.records[1])}


def test_the_comments_of_the_example_are_its_bytes() -> None:
    for line in code("hex").splitlines():
        spelled, _, comment = line.partition("#")
        words = re.findall(r'"(\w+)"', comment)
        assert all(word.encode() in bytes.fromhex(spelled) for word in words)
        assert words or not re.search(r"[6-7][0-9a-f] [6-7][0-9a-f] [6-7][0-9a-f]", spelled)


def reader() -> dict[str, Any]:
    """Returns the functions of the page's reader."""
    functions = code("python").split("\nfor sequence")[0]
    assert len(code("python").splitlines()) <= 40
    namespace: dict[str, Any] = {}
    exec(compile(functions, "FORMAT.md", "exec"), namespace)
    return namespace


READER = reader()


def as_read_by_the_page(data: bytes) -> dict[int, tuple[str, Any]]:
    found: dict[int, tuple[str, Any]] = READER["read"](data)
    return found


def as_read_by_distprof(data: bytes) -> dict[int, tuple[str, Any]]:
    shard = parse_shard(data)
    plain = [(record.KIND, msgpack.unpackb(msgpack.packb(to_payload(record)))) for record in shard.records]
    return dict(zip(shard.sequences, plain, strict=True))


@patient
@given(shards(), st.data())
def test_the_reader_of_the_page_reads_as_distprof_does(shard: tuple[Any, bytes], draws: st.DataObject) -> None:
    data = bytearray(shard[1])
    assert as_read_by_the_page(bytes(data)) == as_read_by_distprof(bytes(data))
    header = 11 + int.from_bytes(data[7:11], "big")
    if len(data) > header:
        data[draws.draw(st.integers(header, len(data) - 1))] ^= draws.draw(st.integers(1, 255))
        cut = draws.draw(st.integers(header, len(data)))
        assert as_read_by_the_page(bytes(data[:cut])) == as_read_by_distprof(bytes(data[:cut]))


def test_page_reader_skips_damage() -> None:
    for start, end in itertools.pairwise(edges(DATA)[1:]):
        for kept in range(end - start):
            shorter = DATA[: start + kept] + DATA[end:]
            assert as_read_by_the_page(shorter) == as_read_by_distprof(shorter)


def test_the_reader_of_the_page_reads_numbers() -> None:
    assert READER["numbers"](np.array([1, 2**32 - 1], "<u4").tobytes(), "<u4") == [1, 2**32 - 1]
    assert READER["numbers"](np.array([-1, 2**40], "<i8").tobytes(), "<i8") == [-1, 2**40]
    shard = written([Header("run", 0, 1), Counts(0, FORWARD, 1, 1, forward_macs=np.array([7, 2**64], object))])
    assert READER["numbers"](as_read_by_the_page(shard)[1][1]["forward_macs"], "<i8") == [7, 2**64]


def test_page_reader_refuses_other_files() -> None:
    with pytest.raises(ValueError, match="no shard of schema 3"):
        as_read_by_the_page(
            example().replace(b"\x92\x03\x00", b"\x92\x04\x00").replace(b"\xf5\xfb\x4e\xe6", _checksum())
        )
    assert as_read_by_the_page(b"PK\x03\x04") == {}


def _checksum() -> bytes:
    return zlib.crc32(example()[11:76].replace(b"\x92\x03\x00", b"\x92\x04\x00")).to_bytes(4, "big")


def test_the_reader_of_the_page_runs_with_msgpack_alone(tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(code("python"), encoding="utf-8")
    (tmp_path / "shard").write_bytes(DATA)
    (tmp_path / "distprof.py").write_text("raise ImportError('the reader is on its own')", encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "reader.py", "shard"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines] == [record.KIND for record in SMALL]
    (step, *_) = [record for record in SMALL if isinstance(record, Step)]
    assert lines[3] == f"3 step {step.forward_ns.astype(float).tolist()}"
