"""Tests of ``distprof.record()`` and ``distprof.set_topology()``, in this process and in scripts."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.forking.server import forking_python
from support.processes import python
from support.recording import Seen, seen
from torch import nn

import distprof
import distprof.api
from distprof.errors import DataError, UsageError
from distprof.records import End, Error, Step, Topology
from distprof.topology.declared import DeclaredTopology, current, declare


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DISTPROF_", "SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE")):
            monkeypatch.delenv(name)


@pytest.fixture
def undeclared() -> Iterator[None]:
    yield
    declare(None)


def train(steps: int = 5) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        model(torch.ones(4, 8)).sum().backward()
        optimizer.step()


def test_record_gives_the_run_folder(tmp_path: Path) -> None:
    with distprof.record(tmp_path / "runs", "mine", warmup=1, timed=2) as run:
        train()
    assert run == tmp_path / "runs" / "mine"
    found = seen(run)
    assert found.one(End).reason == "window complete"
    assert found.shard.header.run_id == "mine"


def test_record_gives_the_report_and_names_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with distprof.record(tmp_path, "mine", warmup=1, timed=2) as run:
        assert run._repr_html_() is None  # nothing is recorded: a notebook shows the path
        train()
    report = run.report()
    assert [row.steps for row in report.report.ranks] == [2]
    assert run._repr_html_() == report._repr_html_()
    assert capsys.readouterr().err == (
        f"distprof: recorded in {run}: 'distprof merge {run}' or distprof.load({str(run)!r}) makes the report\n"
    )


def test_record_names_no_run_where_no_model_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with distprof.record(tmp_path, "mine") as run:
        pass
    assert capsys.readouterr().err == ""
    with pytest.raises(DataError, match="holds no shard"):
        run.report()


def test_misspelt_variables_are_named_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    distprof.api._name_unknown_variables.cache_clear()
    monkeypatch.setenv("DISTPROF_TIME", "3")
    for _ in range(2):
        with distprof.record(tmp_path, warmup=0, timed=1):
            pass
    assert capsys.readouterr().err == (
        "distprof: the environment has an unknown variable 'DISTPROF_TIME': did you mean 'DISTPROF_TIMED'?\n"
    )


def test_a_run_without_a_name_gets_one_of_its_own(tmp_path: Path) -> None:
    runs = set()
    for _ in range(2):
        with distprof.record(tmp_path, warmup=0, timed=1) as run:
            train(1)
        runs.add(run)
    assert len(runs) == 2 and all(run.parent == tmp_path and seen(run) for run in runs)


def test_ranks_that_give_one_name_share_a_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with distprof.record(tmp_path, "job 1/2", warmup=0, timed=1) as run:
            train(2)
    assert run.name == "job-1-2"
    assert sorted(path.name for path in (run / "shards").iterdir()) == [
        "rank00000.g0.msgpack",
        "rank00000.g1.msgpack",
    ]


def test_a_job_that_knows_its_name_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with distprof.record(tmp_path, warmup=0, timed=1) as run:
        pass
    assert run.name == "job-4711"


def test_yielded_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with distprof.record(warmup=0, timed=1) as run:
        monkeypatch.chdir(tmp_path / "elsewhere")
        train(2)
    assert run.is_absolute()
    assert seen(tmp_path / "runs" / run.name).one(End)


def test_environment_variables_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTPROF_WARMUP", "0")
    monkeypatch.setenv("DISTPROF_COUNT", "0")
    with distprof.record(tmp_path, timed=2) as run:
        train(3)
    assert [step.iteration for step in seen(run).of(Step)] == [0, 1]


def test_one_inside_another_does_nothing_more(tmp_path: Path) -> None:
    with distprof.record(tmp_path, "outer", warmup=0, timed=3) as outer:
        with distprof.record(tmp_path, "inner", warmup=0, timed=1) as inner:
            train(1)
        train(1)
    assert inner == outer and not (tmp_path / "inner").exists()
    assert len(seen(outer).of(Step)) == 1  # the first one was counted


def test_an_exception_passes_and_the_recorder_ends(tmp_path: Path) -> None:
    theirs = ValueError("theirs")
    with pytest.raises(ValueError, match="theirs") as caught, distprof.record(tmp_path, "mine", timed=1) as run:
        train(1)
        raise theirs
    assert caught.value is theirs
    assert seen(run).one(End).reason == "exit"


def test_settings_that_cannot_be_are_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="warmup is -1"), distprof.record(tmp_path, warmup=-1):
        pass
    with pytest.raises(TypeError), distprof.record(tmp_path, wormup=1):
        pass


def test_a_folder_that_cannot_be_made_does_not_stop_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with distprof.record(tmp_path / "file" / "runs", "mine", warmup=0, timed=1) as run:
        train(2)
    why, where = capfd.readouterr().err.splitlines()
    assert why.startswith("distprof: ") and str(run) in why and where.startswith(f"distprof: recorded in {run}: ")
    assert (tmp_path / "tmp") in run.parents
    assert seen(run).one(End)


def test_without_a_recorder_the_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("distprof.recorder.recorder.Recorder.__init__", fails)
    with distprof.record(tmp_path, "mine") as run:
        train(1)
    assert run == tmp_path / "mine" and list((run / "shards").iterdir()) == []
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_what_is_declared_reaches_the_shard(tmp_path: Path, undeclared: None) -> None:
    with distprof.record(tmp_path, "mine", warmup=0, timed=1) as run:
        distprof.set_topology(tp=1, dp=1)
        train(2)
    topology = seen(run).of(Topology)[-1]
    assert (topology.source, topology.sizes["dp"], topology.notes) == ("declared", 1, ())


def test_what_is_declared_late_holds_too(tmp_path: Path, undeclared: None) -> None:
    with distprof.record(tmp_path, "mine", warmup=0, timed=2) as run:
        train(2)
        distprof.set_topology(dp=1)
        train(1)
    first, last = seen(run).of(Topology)
    assert (first.source, last.source) == ("assumed", "declared")


@pytest.mark.parametrize("nonsense", [{"tp": 3}, {"tp": 0}, {"tp": "2"}, {"zz": 1}, {"coordinates": {"tp": 9}}])
def test_nonsense_is_passed_over_and_the_report_says_so(
    tmp_path: Path, undeclared: None, nonsense: dict[str, Any]
) -> None:
    with distprof.record(tmp_path, "mine", warmup=0, timed=1) as run:
        distprof.set_topology(**nonsense)
        train(2)
    topology = seen(run).of(Topology)[-1]
    assert topology.source == "assumed" and "set_topology was ignored" in topology.notes[0]
    assert not seen(run).of(Error)


def test_what_is_declared_is_a_copy(undeclared: None) -> None:
    coordinates = {"tp": 1}
    distprof.set_topology(tp=2, coordinates=coordinates)
    coordinates["tp"] = 0
    assert current() == DeclaredTopology({"tp": 2}, {"tp": 1})


Script = Callable[[str], "tuple[subprocess.CompletedProcess[str], Seen]"]


@pytest.fixture
def script(tmp_path: Path, clean_env: dict[str, str]) -> Script:
    """Runs a script, whose run is called ``mine``, in its own process, and reads its shard."""

    def run(code: str) -> tuple[subprocess.CompletedProcess[str], Seen]:
        (tmp_path / "script.py").write_text(code)
        executable = forking_python(clean_env)
        return python("script.py", cwd=tmp_path, env=clean_env, executable=executable), seen(tmp_path / "runs" / "mine")

    return run


JOB = """
import os, sys
import torch
from torch import nn
import distprof

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

def step():
    model(torch.ones(4, 8)).sum().backward()
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("end", "code", "ending"),
    [("os._exit(7)", 7, []), ("raise ValueError('theirs')", 1, [End("exit", 5, failure="ValueError: theirs")])],
)
def test_however_a_script_ends_its_steps_are_there(script: Script, end: str, code: int, ending: list[End]) -> None:
    """The context of the recorder was entered and not left, as in a notebook."""
    begin = "recording = distprof.record(name='mine', warmup=1, timed=9)\nrecording.__enter__()"
    process, found = script(f"{JOB}\n{begin}\nfor _ in range(5): step()\n{end}")
    assert process.returncode == code
    assert [step.iteration for step in found.of(Step)] == [2, 3, 4]
    assert found.of(End) == ending
    assert "distprof: " not in process.stderr


FORKS = """
for name, count in (("mine", True), ("uncounted", False)):
    with distprof.record(name=name, warmup=0, count=count, timed=9):
        step()
        step()
        original = nn.Module.__call__
        if not os.fork():
            assert nn.Module.__call__ is not original
            for _ in range(3):
                step()
            print("child is through", flush=True)
            sys.exit(0)
        assert os.wait()[1] == 0
        step()
"""


def test_a_forked_child_writes_nothing(script: Script, tmp_path: Path) -> None:
    process, counted = script(JOB + FORKS)
    assert (process.returncode, process.stdout) == (0, "child is through\n" * 2)
    assert [line.partition(": '")[0] for line in process.stderr.splitlines()] == [
        f"distprof: recorded in {tmp_path}/runs/{name}" for name in ("mine", "uncounted")
    ]
    for found, timed in ((counted, [1, 2]), (seen(tmp_path / "runs" / "uncounted"), [0, 1, 2])):
        assert [step.iteration for step in found.of(Step)] == timed
        assert found.kinds.count("end") == 1 and not found.shard.report.damaged
