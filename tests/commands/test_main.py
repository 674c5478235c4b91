"""Tests of the whole command line: it starts fast, imports lazily, and reports an error in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes import output_of

import distprof
from distprof import __version__
from distprof.__main__ import COMMANDS, cli, main
from distprof.errors import DataError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_lists_every_command_and_the_two_lines_to_type(cli: Cli) -> None:
    ended = cli("--help")
    assert ended.returncode == 0
    assert all(f"\n  {name}" in ended.stdout for name in COMMANDS)
    assert "distprof run --nproc 8 train.py" in ended.stdout
    assert "distprof merge runs/NAME" in ended.stdout


@pytest.mark.parametrize(
    "call", ["import distprof", "import distprof.__main__ as m; m.cli(['--help'], standalone_mode=False)"]
)
def test_neither_import_nor_help_loads_anything_heavy(call: str, tmp_path: Path, clean_env: dict[str, str]) -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'msgpack'} & set(sys.modules)"
    code = f"import sys; {call}; loaded = {heavy}; assert not loaded, loaded"
    output_of("-c", code, cwd=tmp_path, env=clean_env)


@pytest.mark.parametrize("command", [["merge", "--help"], ["run", "--help"], ["dump", "--help"]])
def test_the_checkout_runs_without_an_installation(command: list[str]) -> None:
    """Python finds dependencies by PYTHONPATH, where it reads no .pth files, and so no editable installation."""
    root = Path(__file__).parents[2]
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    ended = subprocess.run(
        [sys.executable, "-S", "-m", "distprof", *command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"distprof {command[0]}" in ended.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name: str, cli: Cli) -> None:
    ended = cli(name, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"distprof {name} " in ended.stdout


def test_version_is_the_packages(cli: Cli) -> None:
    assert cli("--version").stdout == f"distprof, version {__version__}\n"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("mege", "'mege' is not a command: did you mean 'merge'?"),
        ("train.py", "train.py is a script, not a command: distprof run --nproc 8 train.py"),
        ("zzz", f"'zzz' is not a command: the commands are {', '.join(COMMANDS)}"),
    ],
)
def test_unknown_commands(word: str, sentence: str, cli: Cli) -> None:
    ended = cli(word, "--nproc", "2")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"distprof: {sentence}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--verison"], "no such option '--verison'. Did you mean '--version'? ('distprof --help' explains it)"),
        (["diff", "a"], "missing argument 'SECOND' ('distprof diff --help' explains it)"),
        (
            ["log", "x", "--to", "tensorbord"],
            "invalid value for '--to': 'tensorbord' is not one of 'tensorboard', 'wandb', 'mlflow' "
            "('distprof log --help' explains it)",
        ),
    ],
)
def test_a_wrong_call_is_told_in_one_sentence(words: list[str], sentence: str, cli: Cli) -> None:
    ended = cli(*words)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"distprof: {sentence}\n")


def test_the_package_lists_its_public_names() -> None:
    assert dir(distprof) == sorted(distprof.__all__)
    assert all(hasattr(distprof, name) for name in dir(distprof))


def test_an_error_for_the_user_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(**_: object) -> None:
        raise DataError("runs/x is no run")

    monkeypatch.setattr(cli, "main", refuse)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "distprof: runs/x is no run\n"
