"""Tests of ``distprof dump`` as users call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from distprof.commands.dump import command
from distprof.records import End, Header, ModuleRow, Plan, Record, Step, Tree
from distprof.shard.writer import FileSink, ShardWriter

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

STEP = Step(6, "training", 5, 7, {"other": 7}, 1, 2, 2, 100, "rss", np.arange(2), np.array([-4, 9]), np.arange(2))
RECORDS: list[Record] = [
    Header("the-run", 1, 2, host="caf\u00e9\x1b[2J"),
    Plan(5, 1, 2),
    Tree(0, (ModuleRow("", "Net", 0, -1, 0), ModuleRow("a", "Linear", 0, 0, 1))),
    STEP,
    STEP,
    End("window complete", 8),
]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "rank00001.g0.msgpack"
    writer = ShardWriter(FileSink(path))
    for record in RECORDS:
        writer.write(record)
    writer.close()
    return path


def dump(*arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments)])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(bytes(data))


def test_every_record_is_a_line(shard: Path) -> None:
    result = dump(shard)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [(line["kind"], line["sequence"]) for line in lines(result)] == [
        ("header", 0),
        ("plan", 1),
        ("tree", 2),
        ("step", 3),
        ("step", 4),
        ("end", 5),
    ]
    assert lines(result)[1] == {
        "kind": "plan",
        "sequence": 1,
        "start": 5,
        "window": 0,
        "counted": 1,
        "timed": 2,
        "settling": 0,
        "traced": 0,
    }
    assert lines(result)[2]["rows"][1]["class_name"] == "Linear"
    assert lines(result)[3]["forward_ns"] == [-4, 9]


def test_nothing_in_a_record_reaches_the_terminal_raw(shard: Path) -> None:
    result = dump(shard)
    assert lines(result)[0]["host"] == "caf\u00e9\x1b[2J"
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout


def test_kinds_are_chosen(shard: Path) -> None:
    assert [line["kind"] for line in lines(dump("--kind", "end", "--kind", "plan", shard))] == ["plan", "end"]


def test_a_kind_that_there_is_not_is_a_mistake_in_the_call(shard: Path) -> None:
    result = dump("--kind", "steps", shard)
    assert result.exit_code == 2
    assert "'steps' is none of header, plan," in result.stderr


def test_several_shards_are_told_apart(shard: Path) -> None:
    other = shard.with_name("rank00002.g0.msgpack")
    other.write_bytes(shard.read_bytes())
    named = [line["shard"] for line in lines(dump("--kind", "end", shard, other))]
    assert named == [str(shard), str(other)]


def test_the_summary_counts(shard: Path) -> None:
    assert lines(dump("--summary", shard)) == [
        {
            **{"run_id": "the-run", "rank": 1, "world_size": 2},
            "records": {"header": 1, "plan": 1, "tree": 1, "step": 2, "end": 1},
            **{"damaged": False, "unread_bytes": 0, "unread_why": "", "sequence_gaps": 0, "repeated": 0},
            **{"unknown_kinds": {}, "malformed": []},
        }
    ]


def test_damage_goes_to_stderr_and_the_rest_to_stdout(shard: Path) -> None:
    flip(shard, shard.read_bytes().index(b"plan"))
    result = dump(shard)
    assert result.exit_code == 0
    assert [line["sequence"] for line in lines(result)] == [0, 2, 3, 4, 5]
    unread, missing = result.stderr.splitlines()
    assert unread.startswith(f"distprof: {shard}: a record is damaged: ")
    assert missing == f"distprof: {shard}: records that were written and are not there: 1"
    assert lines(dump("--summary", shard))[0]["damaged"] is True


def test_records_that_are_there_twice_are_named(shard: Path) -> None:
    data = shard.read_bytes()
    shard.write_bytes(data + data[data.rindex(b"\x92\xce") :])
    result = dump("--kind", "end", shard)
    assert len(lines(result)) == 1
    assert result.stderr == f"distprof: {shard}: records that are there twice, passed over: 1\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: its rank ended before it wrote anything"),
        (b"\x7fELF" * 100, "is no distprof shard: it does not begin with a header"),
    ],
)
def test_a_file_that_is_no_shard_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)
    result = dump(path)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"distprof: {path} {sentence}\n")


def test_missing_file_is_one_sentence(shard: Path) -> None:
    gone = shard.with_name("gone")
    result = dump("--kind", "end", gone, shard)
    assert result.exit_code == 1
    assert result.stderr == f"distprof: {gone} cannot be read: No such file or directory\n"
    assert len(lines(result)) == 1


def test_the_installed_command_pipes_into_head(cli: Cli, shard: Path, clean_env: dict[str, str]) -> None:
    big = shard.with_name("big")
    writer = ShardWriter(FileSink(big))
    writer.write(RECORDS[0])
    for _ in range(3000):
        writer.write(STEP)
    reader, sender = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "distprof", "dump", str(big)],
        cwd=shard.parent,
        env=clean_env,
        stdout=sender,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(sender)
    assert json.loads(os.read(reader, 4096).splitlines()[0])["kind"] == "header"
    os.close(reader)
    assert process.communicate(timeout=240)[1] == ""
    assert process.returncode == 0


def test_help_has_an_example_and_nothing_imports_torch(cli: Cli, shard: Path) -> None:
    assert "distprof dump --kind step runs/NAME/shards/" in cli("dump", "--help").stdout
    result = cli("dump", shard, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert len(result.stdout.splitlines()) == len(RECORDS)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "msgpack" in imported
    assert not {name for name in imported if name.split(".")[0] in ("torch", "matplotlib")}
