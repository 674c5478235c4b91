"""Tests of the command line of ``distprof run``: torchrun's options and distprof's own."""

from __future__ import annotations

import os
import py_compile
import tempfile
import zipapp
from pathlib import Path

import pytest
from support.processes import output_of

from distprof.config.settings import Settings
from distprof.errors import UsageError
from distprof.launcher import torchrun


@pytest.fixture(autouse=True)
def no_foreign_variables(monkeypatch: pytest.MonkeyPatch, clean_env: dict[str, str]) -> None:
    for name in set(os.environ) - set(clean_env):
        monkeypatch.delenv(name)


def test_nproc_is_torchruns_nproc_per_node() -> None:
    for flag in ("--nproc", "--nproc-per-node", "--nproc_per_node"):
        assert torchrun.parse([flag, "3", "train.py"]).nproc_per_node == "3"
    assert torchrun.parse(["train.py"]).nproc_per_node == "1"


def test_our_options_are_parsed_before_the_script_only() -> None:
    args = torchrun.parse(["--out", "a", "--nproc", "2", "--no-count", "train.py", "--out", "b", "--merge"])
    options = torchrun.options(args)
    assert (str(options.out), options.settings, options.merge) == ("a", Settings(count=False), False)
    assert args.training_script_args == ["--out", "b", "--merge"]


@pytest.mark.parametrize(
    "theirs", [["--t", "3"], ["--n", "1"], ["--no"], ["--", "--name", "x"], ["-m", "y"], ["--help"], ["-1", ""]]
)
def test_arguments_of_the_script_are_never_touched(theirs: list[str]) -> None:
    assert torchrun.parse(["--nproc", "2", "train.py", *theirs]).training_script_args == theirs
    assert torchrun.parse(["-m", "package.train", *theirs]).training_script_args == theirs


def test_one_node_without_rendezvous_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchrun.parse(["--nproc", "2", "train.py"]).standalone
    assert torchrun.parse(["--nnodes", "1", "train.py"]).standalone
    monkeypatch.setenv("PET_MASTER_PORT", "1234")
    assert not torchrun.parse(["train.py"]).standalone


@pytest.mark.parametrize(
    "chosen",
    [
        ["--nnodes", "2"],
        ["--master-port", "29500"],
        ["--master_addr=127.0.0.1"],
        ["--node-rank", "0"],
        ["--rdzv-id", "7"],
        ["--rdzv-backend", "static"],
    ],
)
def test_a_rendezvous_that_was_chosen_is_kept(chosen: list[str]) -> None:
    assert not torchrun.parse([*chosen, "train.py"]).standalone


@pytest.mark.parametrize(
    ("arguments", "world_size"),
    [
        (["--nproc", "4"], 4),
        (["--nproc", "4", "--nnodes", "2"], 8),
        (["--nproc", "4", "--nnodes", "1:2"], 0),
        (["--nproc", "gpu"], 0),
    ],
)
def test_the_world_size_is_told_where_it_is_certain(arguments: list[str], world_size: int) -> None:
    assert torchrun.job(torchrun.parse([*arguments, "train.py"]), None, []).world_size == world_size


def test_the_nodes_of_a_job_come_to_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(*arguments: str) -> str | None:
        args = torchrun.parse([*arguments, "dir/train.py"])
        return torchrun.job(args, torchrun.options(args).name, []).shared_name

    assert name("--nproc", "2") is None
    assert name("--nnodes", "2", "--rdzv-id", "42") == "job-42"
    assert name("--nnodes", "2", "--rdzv-id", "42", "--name", "mine") == "mine"
    assert name("--nnodes", "2", "--node-rank", "1", "--master-addr", "h0", "--master-port", "1") == "train-h0-1"
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    assert name("--nnodes", "2", "--node-rank", "1", "--master-addr", "h0") == "job-99"


def test_a_module_and_a_script_give_their_names_to_the_run() -> None:
    assert torchrun.job(torchrun.parse(["-m", "package.train"]), None, []).title == "package.train"
    assert torchrun.job(torchrun.parse(["dir/train.py"]), None, []).title == "train"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--npoc", "2", "train.py"], "'distprof run' has no option --npoc: did you mean '--nproc'?"),
        (
            ["--nproc", "2", "--bogus", "train.py"],
            "'distprof run' has no option --bogus: 'distprof run --help' lists them",
        ),
        (["--nproc", "2"], "no script is given, as in: distprof run --nproc 8 train.py"),
        (["--warmup", "x", "train.py"], "argument --warmup: invalid int value: 'x' ('distprof run --help' explains"),
    ],
)
def test_wrong_options_get_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        torchrun.parse(arguments)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.py"], "the script missing.py does not exist in "),
        (["python", "train.py"], "the script python does not exist in .*: distprof starts Python itself, as in: "),
        ([""], "no script is given, as in: distprof run --nproc 8 train.py"),
        (["."], r"\. is a folder without __main__\.py: give a script, as in: distprof run --nproc 8 train.py"),
        (["words.txt"], r"words.txt is no Python script \(line 2: .*\): --no-python starts other programs"),
        (["weights"], r"weights is no Python script \(.*\): --no-python starts other programs"),
        (["-m", "no_such.train"], "there is no module no_such.train in .*, nor is it installed"),
        (["-m", "..train"], r"there is no module \.\.train in .*, nor is it installed"),
        (["--no-python", "no-such-program"], "cannot start no-such-program: it does not exist, or is not executable"),
        (["--nproc", "two", "train.py"], "--nproc two is not a number of ranks: give a number, gpu, cpu or auto"),
        (["--nproc", "0", "train.py"], "--nproc 0 starts no rank: give 1 or more"),
        (["--nnodes", "few", "train.py"], "--nnodes few is not a number of nodes: give a number, or two as in 1:4"),
    ],
)
def test_jobs_that_cannot_start(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "words.txt").write_text("torch\nnumpy==1.0.0\n", encoding="utf-8")
    (tmp_path / "weights").write_bytes(bytes(range(256)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{sentence}"):
        torchrun.check(torchrun.parse(arguments))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_script_that_cannot_be_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        script = Path(folder) / "train.py"
        script.touch(mode=0o600)
        args = torchrun.parse([str(script)])
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setresuid(12_345, 12_345, 12_345)
                torchrun.check(args)
            except UsageError as error:
                code = 0 if str(error).startswith(f"the script {script} cannot be read") else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        *(["-m", "package.train"], ["-m", "json.tool"], ["--no-python", "true"], ["--nproc", "cpu", "train.py"]),
        *(["app"], ["app.zip"], ["old.pyc"], ["other_name"], ["wrong.py"], ["/dev/null"]),
    ],
)
def test_jobs_that_can_start(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors inside a file with Python's ending are left to Python."""
    for folder in ("package", "app"):
        (tmp_path / folder).mkdir()
    for script in ("train.py", "app/__main__.py", "other_name"):
        (tmp_path / script).write_text("import sys\n", encoding="utf-8")
    (tmp_path / "wrong.py").write_text("import\n", encoding="utf-8")
    py_compile.compile(str(tmp_path / "train.py"), str(tmp_path / "old.pyc"))
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.zip")
    monkeypatch.chdir(tmp_path)
    torchrun.check(torchrun.parse(arguments))


def test_imported_objects_are_frozen_for_gc(clean_env: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import gc; from distprof.launcher import torchrun; before = gc.get_freeze_count()\n"
        "torchrun.parse(['train.py'])\n"
        "print(gc.isenabled(), gc.get_freeze_count() - before > 100_000)"
    )
    assert output_of("-c", code, cwd=tmp_path, env=clean_env) == "True True\n"
