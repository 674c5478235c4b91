"""Runs the jobs that hang, or seem to, and judges what the hang watch says of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from distprof.heartbeat.hang_file import Hang, read_hangs
from distprof.run_folder import RunFolder
from soak.console_output import Progress
from soak.hangs.situations import RANKS, SITUATIONS, Situation

_TRAIN = Path(__file__).with_name("train.py")
DISTPROF = (sys.executable, "-m", "distprof")
#: The floor of the watch's limits, and how long a job may take to be judged.
STALL_S, _MOST_S = 3.0, 300.0


def run(pattern: str, progress: Progress) -> bool:
    """Runs the jobs whose faults match a pattern, as a shell's.  Returns whether all verdicts are right."""
    chosen = [situation for situation in SITUATIONS if fnmatch(situation.fault, pattern)]
    right = bool(chosen)
    for situation in chosen:
        progress.say(f"a job: {situation.fault}")
        with tempfile.TemporaryDirectory(prefix="distprof-soak-") as folder:
            wrong, said = judge(situation, Path(folder))
        progress.clear()
        verdict = f"WRONG, {wrong}" if wrong else "right"
        print(f"{situation.fault}: {verdict}{f' ({said})' if said else ''}", flush=True)
        right = right and not wrong
    print(f"{len(chosen)} jobs that hang, or seem to: {'all' if right else 'NOT all'} were judged right\n")
    return right


def judge(
    situation: Situation,
    folder: Path,
    command: Sequence[str] = DISTPROF,
    environment: Mapping[str, str] = os.environ,
    stall_s: float = STALL_S,
) -> tuple[str, str]:
    """Runs one job in a folder.  Returns what is wrong with the verdict, empty if it is right, and the verdict."""
    words = [
        *command, "run", "--nproc", str(RANKS), "--name", "x", "--warmup", "1", "--timed", "2",
        "--stall", str(stall_s), str(_TRAIN), situation.fault, str(stall_s),
    ]  # fmt: skip
    run_folder = RunFolder(folder / "runs" / "x")
    with (folder / "log").open("w+b") as log:
        job = subprocess.Popen(words, cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
        try:
            found = _wait(job, run_folder, situation)
        finally:
            _end(job, folder)
        log.seek(0)
        text = log.read().decode(errors="replace")
    said = f"{found[-1].cause}, after {found[-1].age_s:.1f} s of a limit of {stall_s:g} s" if found else ""
    return _wrong(situation, found, text), said


def _wait(job: subprocess.Popen[bytes], run_folder: RunFolder, situation: Situation) -> list[Hang]:
    """Waits for a verdict, or for the end of the job."""
    until = time.monotonic() + _MOST_S
    while time.monotonic() < until:
        found = read_hangs(run_folder)
        if found and situation.hangs:
            time.sleep(1)  # the line in the log follows
            return found
        if job.poll() is not None:
            return read_hangs(run_folder)
        time.sleep(0.1)
    return read_hangs(run_folder)


def _end(job: subprocess.Popen[bytes], folder: Path) -> None:
    """Kills what still hangs; the launcher then ends by itself."""
    (folder / "stop").touch()
    if job.poll() is None:
        for path in folder.glob("pid[0-9]"):
            try:
                os.kill(int(path.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                continue
    try:
        job.wait(60)
    except subprocess.TimeoutExpired:
        job.terminate()
        job.wait(60)


def _wrong(situation: Situation, found: Sequence[Hang], log: str) -> str:
    if not situation.hangs:
        return f"{len(found)} false alarms: {found[0].cause}" if found else ""
    if not found:
        return f"nothing was found; the job's log ends with {log[-2000:]!r}"
    hang = found[0]
    if (hang.kind, hang.ranks) != (situation.kind, situation.ranks):
        return f"{hang.kind}, ranks {hang.ranks}, and not {situation.kind}, ranks {situation.ranks}"
    if situation.words not in hang.cause:
        return f"{situation.words!r} is not in the cause"
    if log.count(hang.cause) != 1:
        return f"the log has the cause {log.count(hang.cause)} times"
    return ""
