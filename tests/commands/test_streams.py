"""Tests of closed or full streams: no traceback, the work is done, and the job's stdout has nothing of distprof."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.synthetic import write_run

CASES = Path(__file__).parent.parent / "cases"
Shell = Callable[[str], "subprocess.CompletedProcess[str]"]

CLOSED, FULL = "{}>&-", "{}>/dev/full"
NO_ROOM = "distprof: stdout does not take what is printed: No space left on device\n"
NOT_THERE = "distprof: stdout does not take what is printed: Bad file descriptor\n"


@pytest.fixture
def shell(tmp_path: Path, clean_env: dict[str, str]) -> Shell:
    """``shell("distprof merge run 2>&-")`` runs the line in ``tmp_path``."""

    def call(line: str) -> subprocess.CompletedProcess[str]:
        # Python keeps unwritten output in its buffer, but not if it is unbuffered.
        whole = f'export PYTHONUNBUFFERED=\ndistprof() {{ "{sys.executable}" -m distprof "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", whole], cwd=tmp_path, env=clean_env, capture_output=True, text=True, timeout=600, check=False
        )

    return call


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", dp=2)


@pytest.mark.parametrize(("how", "said"), [(CLOSED, NOT_THERE), (FULL, NO_ROOM)])
def test_a_report_that_cannot_be_printed_is_written(shell: Shell, run: Path, how: str, said: str) -> None:
    ended = shell(f"distprof merge run --no-plots {how.format(1)}")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"distprof: report in run/report\n{said}"
    assert (run / "report" / "summary.txt").exists()


@pytest.mark.parametrize("how", [CLOSED, FULL])
def test_what_stderr_does_not_take_is_said_nowhere(shell: Shell, run: Path, how: str) -> None:
    ended = shell(f"distprof merge run --full --no-plots {how.format(2)}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (run / "report" / "summary.txt").read_text()
    nothing = shell(f"distprof merge nosuch {how.format(2)}; echo $?; distprof merge {how.format(2)}; echo $?")
    assert (nothing.stdout, nothing.stderr) == ("1\n2\n", "")


@pytest.mark.parametrize("how", [CLOSED, FULL])
def test_with_neither_a_report_is_written(shell: Shell, run: Path, how: str) -> None:
    ended = shell(f"distprof merge run --no-plots <&- {how.format(1)} {how.format(2)}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")
    assert (run / "report" / "summary.json").exists()


@pytest.mark.parametrize(("how", "said"), [(CLOSED, NOT_THERE), (FULL, NO_ROOM)])
@pytest.mark.parametrize(
    "command", ["--help", "--version", "merge --help", "dump run/shards/*", "dump --summary run/shards/*"]
)
def test_every_command_says_that_it_could_not_print(shell: Shell, run: Path, command: str, how: str, said: str) -> None:
    assert run.exists()
    for unbuffered in ("", "1"):
        ended = shell(f"export PYTHONUNBUFFERED={unbuffered}; distprof {command} {how.format(1)}")
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", said)


@pytest.mark.parametrize("how", [CLOSED, FULL])
def test_a_job_ends_as_it_would_and_its_stdout_is_its_own(shell: Shell, how: str) -> None:
    job = """-- sh -c 'echo mine; test -e /dev/fd/2 || echo no stderr; exit 3'"""
    plain = shell(f"env {job} {how.format(2)}; echo $?")
    ended = shell(f"distprof exec {job} {how.format(2)}; echo $?")
    assert ended.stdout == plain.stdout == ("mine\nno stderr\n3\n" if how == CLOSED else "mine\n3\n")


@pytest.mark.parametrize("how", [CLOSED, FULL])
def test_a_job_without_stdout_ends_as_it_would(shell: Shell, how: str) -> None:
    job = """-- sh -c 'test -e /dev/fd/1 || exit 4; exit 3'"""
    plain, ended = shell(f"env {job} {how.format(1)}"), shell(f"distprof exec {job} {how.format(1)}")
    assert ended.returncode == plain.returncode == (4 if how == CLOSED else 3)


SAYS = """
import os, sys
from distprof.console import say
say("this is ours")
print("mine")
print(os.fstat(3).st_size)
"""


@pytest.mark.parametrize("how", [CLOSED, FULL])
def test_messages_change_no_stdout_and_no_exit_code(shell: Shell, tmp_path: Path, how: str) -> None:
    (tmp_path / "says.py").write_text(SAYS)
    ended = shell(f'"{sys.executable}" says.py {how.format(2)} 3>file')
    assert (ended.returncode, ended.stdout) == (0, "mine\n0\n")


def test_what_is_said_comes_after_what_was_printed_before(shell: Shell, tmp_path: Path) -> None:
    script = 'sys.stderr.write("one\\n"); say("a\\nb"); print("two", file=sys.stderr)'
    (tmp_path / "says.py").write_text(f"import sys; from distprof.console import say; {script}")
    assert shell(f'"{sys.executable}" says.py').stderr == "one\ndistprof: a\\nb\ntwo\n"


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_a_command_ends_where_its_parent_ignores_its_children(shell: Shell, command: str, code: int) -> None:
    ended = shell(f"trap '' CHLD; exec \"{sys.executable}\" -m distprof exec -- sh -c '{command}'")
    assert ended.returncode == code
    assert "no rank was recorded" in ended.stderr


def test_a_command_ignores_what_it_would_ignore_without_us(shell: Shell) -> None:
    tell = f"-- \"{sys.executable}\" -c 'import signal; print(signal.getsignal(signal.SIGCHLD).name)'"
    assert shell(f"trap '' CHLD; distprof exec {tell}").stdout == "SIG_IGN\n"
    assert shell(f"distprof exec {tell}").stdout == "SIG_DFL\n"
    missing = shell("trap '' CHLD; distprof exec nosuch")
    assert (missing.returncode, missing.stderr) == (127, "distprof: cannot start nosuch: no such command\n")


def test_it_ends_under_a_daemon(shell: Shell) -> None:
    daemon = CASES / "parent_ignores_sigchld.py"
    ended = shell(f'"{sys.executable}" "{daemon}" "{sys.executable}" -m distprof exec -- true')
    assert (ended.returncode, ended.stdout) == (0, "ended\n")


def test_merging_after_the_job_is_waited_for(shell: Shell, tmp_path: Path) -> None:
    """The exit code of the merge arrives although SIGCHLD is ignored."""
    (tmp_path / "distprof.toml").write_text("merge = true\n")
    (tmp_path / "job.py").write_text(
        "import os, torch; torch.nn.Linear(2, 2)(torch.ones(1, 2)); os.mkfifo('runs/it/report')"
    )
    ended = shell(f"trap '' CHLD; distprof exec --name it -- \"{sys.executable}\" job.py")
    assert ended.returncode == 0
    assert "distprof: merging ended with exit code 1; the shards are safe: distprof merge runs/it" in ended.stderr
