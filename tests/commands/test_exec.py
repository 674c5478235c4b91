"""Tests of ``distprof exec``: it replaces itself by the command."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from distprof.commands.exec_ import title

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
DISTPROF = [sys.executable, "-m", "distprof"]
#: Counts the SIGINTs that it gets, and prints when it is ready.
COUNT_SIGINTS = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(1))
print("ready", flush=True)
until = time.monotonic() + 20
while not got and time.monotonic() < until:
    time.sleep(0.02)
time.sleep(0.5)
sys.exit(len(got) + 10)
"""


def test_the_command_runs_with_two_variables_more(cli: Cli, tmp_path: Path, clean_env: dict[str, str]) -> None:
    tell = "import json, os, sys; json.dump([sys.argv, dict(os.environ)], open('seen', 'w'))"
    command = [sys.executable, "-c", tell, "--name", "x", "--", "-h"]
    ended = cli("exec", "--name", "mine", "--", *command)
    argv, environment = json.loads((tmp_path / "seen").read_text())
    run = tmp_path / "runs" / "mine"
    assert (ended.returncode, argv) == (0, ["-c", "--name", "x", "--", "-h"])
    assert environment == {**clean_env, "PYTHONPATH": str(run / "inject"), "DISTPROF_RUN": str(run)}
    assert ended.stderr.startswith("distprof: no rank was recorded in runs/mine; every process left no shard")


@pytest.mark.parametrize(("code", "end"), [(0, "exit 0"), (7, "exit 7"), (-9, "kill -9 $$"), (-15, "kill -15 $$")])
def test_it_ends_as_its_command_ended(code: int, end: str, cli: Cli) -> None:
    ended = cli("exec", "sh", "-c", end)
    assert ended.returncode == code
    assert "no rank was recorded" in ended.stderr


@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("./nosuch", 127), ("./data", 126)])
def test_a_command_that_cannot_start_is_said_in_one_line(command: str, code: int, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    ended = cli("exec", "--", command)
    assert (ended.returncode, ended.stderr.count("\n")) == (code, 1)
    assert ended.stderr.startswith(f"distprof: cannot start {command}: ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_through_to_the_command(number: signal.Signals, tmp_path: Path, clean_env: dict[str, str]) -> None:
    """No shell can trap a signal that is ignored when it starts: nohup ignores SIGHUP, a background job SIGINT."""
    answer = f"trap 'exit 5' {number.value}; echo ready; while :; do sleep 0.05; done"
    before = signal.signal(number, lambda *_: None)  # exec turns a handler into the default, and leaves SIG_IGN
    try:
        job = subprocess.Popen(
            [*DISTPROF, "exec", "--", "sh", "-c", answer],
            cwd=tmp_path,
            env=clean_env,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(number, before)
    assert job.stdout is not None
    try:
        assert job.stdout.readline() == "ready\n"
        job.send_signal(number)
        assert job.wait(timeout=120) == 5
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)  # the command is a child of the process that was started
        job.stdout.close()


def test_ctrl_c_in_a_terminal_reaches_the_command_once(tmp_path: Path, clean_env: dict[str, str]) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        command = [*DISTPROF, "exec", "--", sys.executable, "-c", COUNT_SIGINTS]
        os.execvpe(command[0], command, clean_env)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    time.sleep(0.1)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 11


def test_the_tasks_of_a_slurm_step_record_in_one_run(cli: Cli, tmp_path: Path) -> None:
    step = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "2"}
    first, second = (cli("exec", "true", env={**step, "SLURM_PROCID": rank}) for rank in "01")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["job-12.3"]
    assert ("recorded in runs/job-12.3" in first.stderr, second.stderr) == (True, "")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("torchrun --nproc-per-node 2 dir/train.py --config a.py", "train"),
        ("python -m package.train", "package.train"),
        ("/usr/bin/mpirun -n 2 ./program", "mpirun"),
    ],
)
def test_a_run_is_named_after_its_script(command: str, name: str) -> None:
    assert title(command.split()) == name
