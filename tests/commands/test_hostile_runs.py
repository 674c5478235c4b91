"""Tests of runs of unknown origin: distprof does not wait for their files, write through their links, or print raw
text.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shards import END, HEADER, PLAN, step
from support.synthetic import write_run, write_shard

from distprof.config.options import SHOWN
from distprof.config.run_options import options_of_run
from distprof.errors import DataError
from distprof.merge import plots
from distprof.records import Header, Record
from distprof.run_folder import RunFolder
from distprof.shard.frames import MAX_SHARD_BYTES

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

#: Characters that control a terminal, or the order of text.
CODES = "\x1b]0;title\x07\x1b[31m\u202egnp.exe\u2066\x9b2J\ndistprof: all is well"
ESCAPED = r"\x1b]0;title\x07\x1b[31m\u202egnp.exe\u2066\x9b2J\ndistprof: all is well"


def printed(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Returns the printed lines; checks that none contains terminal codes."""
    lines = (ended.stdout + ended.stderr).split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    return lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", dp=2)


@pytest.fixture
def shard(run: Path) -> Path:
    return next(iter(sorted((run / "shards").iterdir())))


def test_a_pipe_in_place_of_the_manifest_is_not_waited_for(here: Cli, run: Path) -> None:
    (run / "run.json").unlink()
    os.mkfifo(run / "run.json")
    ended = here("merge", run, "--no-plots")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "run.json is no manifest of a run (NotRegular: " in ended.stderr


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_shard_that_is_no_file_is_left_out(here: Cli, run: Path, shard: Path, make: Callable[[Path], None]) -> None:
    shard.unlink()
    make(shard)
    ended = here("merge", run, "--no-plots", "--full")
    assert ended.returncode == 0
    assert f"{shard.name}: left out, the file is no distprof shard: it is not a regular file" in " ".join(
        ended.stdout.split()
    )


def test_a_shard_of_holes_is_left_out(here: Cli, run: Path, shard: Path) -> None:
    os.truncate(shard, 60 << 30)
    ended = here("merge", run, "--no-plots", "--full")
    assert ended.returncode == 0
    assert f"{shard.name}: left out, the file is no distprof shard: it has 64,424,509,440 bytes" in " ".join(
        ended.stdout.split()
    )
    assert here("dump", shard).returncode == 1


def test_a_shard_that_does_not_fit_into_memory_costs_no_other(cli: Cli, run: Path, shard: Path) -> None:
    os.truncate(shard, MAX_SHARD_BYTES)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_SHARD_BYTES * 3 // 4, before[1]))
    try:
        ended = cli("merge", run, "--no-plots", "--full")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert ended.returncode == 0, ended.stderr
    assert f"{shard.name}: left out, the file could not be read (its 2,147,483,648 bytes need" in ended.stdout


def test_a_manifest_of_holes_is_refused(here: Cli, run: Path) -> None:
    os.truncate(run / "run.json", 60 << 30)
    ended = here("merge", run, "--no-plots")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "it has 64,424,509,440 bytes" in ended.stderr


@pytest.mark.parametrize(("where", "options"), [("report", ["--no-plots"]), ("report/plots", [])])
def test_no_report_is_written_through_a_link(
    here: Cli, run: Path, tmp_path: Path, where: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One plot is enough."""
    monkeypatch.setattr(plots, "NAMES", ("skew_map",))
    mine = tmp_path / "mine"
    (mine / "plots").mkdir(parents=True)
    for name in ("summary.txt", "summary.json", "skew_map.png", "plots/skew_map.png"):
        (mine / name).write_text("mine")
    (run / where).parent.mkdir(exist_ok=True)
    (run / where).symlink_to(mine)
    ended = here("merge", run, *options)
    assert ended.returncode == 1
    assert f"cannot be written to {run}/{where} (it is a link, which is not followed): choose another" in ended.stderr
    assert "ranks recorded" in ended.stdout
    assert {path.read_text() for path in mine.rglob("*") if path.is_file()} == {"mine"}
    assert sorted(path.name for path in mine.rglob("*")) == sorted(
        ["plots", "summary.txt", "summary.json", "skew_map.png", "skew_map.png"]
    )
    assert here("merge", run, "--out", tmp_path / "elsewhere", *options).returncode == 0


def test_links_to_files_are_replaced(here: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "NAMES", ("skew_map",))
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (run / "report" / "plots").mkdir(parents=True)
    for name in ("summary.txt", "summary.json", "plots/skew_map.png", "plots/skew_map.svg"):
        (run / "report" / name).symlink_to(mine)
    assert here("merge", run).returncode == 0
    assert mine.read_text() == "mine"
    assert not any(path.is_symlink() for path in (run / "report").rglob("*"))


def test_a_folder_that_the_user_names_may_be_a_link(here: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "real")
    assert here("merge", run, "--no-plots", "--out", tmp_path / "latest").returncode == 0
    assert (tmp_path / "real" / "summary.txt").is_file()


def hostile(name: str) -> list[Record]:
    return [Header(name, 0, 1, host=name, script=name, device_name=name), PLAN, step(6), END]


def test_names_in_a_run_reach_no_terminal(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first, second = (tmp_path / "run" / f"rank0000{rank}.g0.msgpack" for rank in range(2))
    write_shard(first, hostile(CODES))
    write_shard(second, [HEADER, PLAN, step(6), END])
    ended = here("merge", "run")
    assert ended.returncode == 1
    assert any("are mixed here" in line and ESCAPED in line for line in printed(ended))
    second.unlink()
    ended = here("merge", "run", "--no-plots")
    assert ended.returncode == 0
    printed(ended)
    summary = (tmp_path / "run" / "report" / "summary.json").read_text()
    assert all(line.isprintable() for line in summary.split("\n"))
    assert json.loads(summary)["run"]["run_id"] == CODES
    dumped = here("dump", first)
    assert json.loads(printed(dumped)[0])["run_id"] == CODES
    printed(here("dump", "--summary", first, first))


def test_names_of_files_reach_no_terminal(here: Cli, tmp_path: Path) -> None:
    odd = CODES.replace("/", "")
    (tmp_path / odd).mkdir()
    assert any(ESCAPED in line for line in printed(here("merge", tmp_path / odd)))
    shard = tmp_path / odd / f"rank{odd}.g0.msgpack"
    shard.write_bytes(b"no shard")
    assert any(ESCAPED in line for line in printed(here("merge", tmp_path / odd)))
    assert any(ESCAPED in line for line in printed(here("dump", shard, shard)))
    (tmp_path / odd / "run.json").write_text("[]")
    assert any(ESCAPED in line for line in printed(here("merge", tmp_path / odd)))
    assert any(ESCAPED in line for line in printed(here("merge", "x", "--config", tmp_path / odd)))
    merges = (["merge", "x", "--window", odd], ["merge", f"--{odd}"])
    for words in (*merges, [odd], ["dump", "x", "--kind", odd], ["count", odd]):
        ended = here(*words)
        assert ended.returncode == 2
        printed(ended)


@settings(max_examples=40)
@given(data=st.data())
def test_any_manifest_is_one_or_one_sentence(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just(10**4000)
    values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
    shown = st.dictionaries(st.sampled_from([option.name for option in SHOWN]), values) | values
    texts, numbers = st.text(st.characters()) | values, st.integers() | values
    fields = {"run_id": texts, "name": texts, "command": st.lists(texts) | values}
    manifests = st.fixed_dictionaries({**fields, "world_size": numbers, "started_wall_ns": numbers, "shown": shown})
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.manifest.write_text(json.dumps(data.draw(manifests | values)))
    with contextlib.suppress(DataError):
        assert all(value.where.endswith("run.json") for value in options_of_run(run).values())


def test_a_name_with_lone_surrogates_is_reported(here: Cli, run: Path) -> None:
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "name": "\ud800"}))
    ended = here("merge", run)
    assert ended.returncode == 0, ended.stderr
    assert r"\ud800" in ended.stdout
