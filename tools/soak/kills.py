"""Kills a rank or the daemon of a real job of two ranks at a random moment, and merges what is left.

The log of each rank tells which iterations it had finished (see :mod:`soak.train`).  After the end of a rank, torchrun
ends the others; the end of the daemon must not be noticed at all.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from distprof.errors import DataError
from distprof.records import Counts, Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import Shard, read_shard
from soak.originals import Random
from soak.train import LINE
from soak.trials import Kind, Outcome

STARTING, IN_WINDOW = VERDICTS = ("while it started", "in its window")
_RANKS = 2
DAEMON = _RANKS  # as the number of a victim
_DAEMON_MAIN = b"distprof.launcher.daemon.main"
_WARMUP, _COUNTED, _ITERATIONS, _FEW_ITERATIONS = 1, 1, 2_000, 200
_FIRST_TIMED = _WARMUP + _COUNTED
_FIRST_USED = _FIRST_TIMED + 1  # in the first one, a rank may have waited for another that still counted
#: The largest size of any file of a job.
_MAX_FILE_BYTES = 1 << 24
_MAX_SECONDS = 300
_LINE_BYTES = len(LINE.format(0))
_TRAIN = Path(__file__).with_name("train.py")
_DISTPROF = (sys.executable, "-m", "distprof")


def kill(rng: Random, folder: Path) -> Outcome:
    """Starts a job in a folder inside ``folder``, kills a rank, and checks what is left."""
    place, victim = folder / "trial", rng.randrange(_RANKS + 1)
    (place / "tmp").mkdir(parents=True)
    starting = rng.random() < 0.15
    # Without a rank that is killed, the job ends by itself.
    with _job(place, _FEW_ITERATIONS if victim == DAEMON else _ITERATIONS) as job:
        try:
            log = _log(place, rng.randrange(_RANKS) if victim == DAEMON else victim)
            _kill(job, log, rng, starting=starting, daemon=victim == DAEMON)
            code = job.wait(_MAX_SECONDS)
        finally:
            job.terminate()  # a launcher ends its ranks, too
    expected = 0 if victim == DAEMON else 1
    assert code == expected, f"torchrun's exit code is {expected}, not {code}"
    counted = judge(place, complete=victim == DAEMON)
    shutil.rmtree(place)
    who = "the daemon" if victim == DAEMON else f"rank {victim}"
    return Outcome(who, STARTING if starting else IN_WINDOW, counted)


def _job(place: Path, iterations: int) -> subprocess.Popen[bytes]:
    window = ("--warmup", str(_WARMUP), "--timed", str(iterations - _FIRST_USED))
    words = ("run", "--nproc", str(_RANKS), "--name", "x", *window, str(_TRAIN), str(iterations))
    variables = {"OMP_NUM_THREADS": "1", "TMPDIR": str(place / "tmp")}  # a torchrun that fails leaves things behind
    with (place / "said").open("wb") as said:
        job = subprocess.Popen(
            [*_DISTPROF, *words], cwd=place, env={**os.environ, **variables}, stdout=said, stderr=said
        )
    resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (_MAX_FILE_BYTES, _MAX_FILE_BYTES))  # and of all that it starts
    return job


def _kill(job: subprocess.Popen[bytes], log: Path, rng: Random, *, starting: bool, daemon: bool) -> None:
    """Kills the rank of a log, or the daemon, at some moment while the rank starts, or in its first iterations."""
    _wait_for_lines(job, log, 1)
    pid = _daemon(log.parent) if daemon else int(log.read_bytes()[:_LINE_BYTES])
    victim = os.pidfd_open(pid)  # of this process and of no later one with its number
    try:
        if not starting:
            _wait_for_lines(job, log, 1 + rng.randrange(1, 150))
        time.sleep(rng.uniform(0, 3 if starting else 0.02))
        signal.pidfd_send_signal(victim, signal.SIGKILL)
    finally:
        os.close(victim)


def _daemon(place: Path) -> int:
    """Returns the process of the daemon of the job in this folder."""
    run = os.fsencode((place / "runs" / "x").absolute())
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if len(words) > 3 and _DAEMON_MAIN in words[2] and words[3] == run:
                    return int(entry.name)
    raise AssertionError("the job has no daemon")


def _wait_for_lines(job: subprocess.Popen[bytes], log: Path, lines: int) -> None:
    until = time.monotonic() + _MAX_SECONDS
    while not log.exists() or log.stat().st_size < lines * _LINE_BYTES:
        assert job.poll() is None and time.monotonic() < until, "the job did not come so far"
        time.sleep(0.0005)


def judge(place: Path, *, complete: bool = False) -> dict[str, int]:
    """Checks that every finished step of the job is in its shards and in the report.  Returns counts.

    ``complete``: no rank was killed.
    """
    run = RunFolder(place / "runs" / "x")
    shards = {rank: shard for rank in range(_RANKS) if (shard := _shard(run, rank)) is not None}
    finished = 0
    for rank in range(_RANKS):
        finished += _judge_rank(_finished(place, rank), shards.get(rank))
    _judge_report(place, shards, complete=complete)
    torn = sum(bool(shard.report.unread_bytes) for shard in shards.values())
    return {"finished steps in the shards": finished, "torn last records": torn}


def _log(place: Path, rank: int) -> Path:
    return place / f"finished{rank}"


def _finished(place: Path, rank: int) -> list[int]:
    """Returns the iterations that the rank has finished, by its log."""
    log = _log(place, rank)
    return [int(line) for line in log.read_text().split()[1:]] if log.exists() else []


def _shard(run: RunFolder, rank: int) -> Shard | None:
    try:
        return read_shard(run.shard_path(rank, 0))
    except (DataError, OSError):
        return None


def _judge_rank(finished: list[int], shard: Shard | None) -> int:
    """Checks that all finished timed steps are in the rank's shard; returns their number."""
    if shard is None:
        assert not finished, f"{len(finished)} iterations were finished, and there is no shard"
        return 0
    timed, counted = _timed(shard), [r.iteration for r in shard.records if isinstance(r, Counts)]
    expected = [iteration for iteration in finished if iteration >= _FIRST_TIMED]
    assert timed[: len(expected)] == expected, f"finished {expected[-3:]}, recorded {timed[-3:]}"
    assert len(timed) - len(expected) <= 1, "a step was recorded that was not run"
    assert _WARMUP not in finished or counted == [_WARMUP], "the counted step is lost"
    assert not shard.report.sequence_gaps and not shard.report.malformed, shard.report
    return len(expected)


def _timed(shard: Shard) -> list[int]:
    return [record.iteration for record in shard.records if isinstance(record, Step)]


def _judge_report(place: Path, shards: dict[int, Shard], *, complete: bool) -> None:
    """Checks that merge ends with 0 and tells how far each rank came; without any rank, with 1 and one line."""
    merged = subprocess.run(
        [*_DISTPROF, "merge", "--no-plots", "runs/x"], cwd=place, capture_output=True, text=True, check=False
    )
    if not shards:
        assert (merged.returncode, merged.stderr.count("\n")) == (1, 1), merged.stderr
        return
    assert merged.returncode == 0, merged.stderr
    report = json.loads((place / "runs" / "x" / "report" / "summary.json").read_text(encoding="utf-8"))
    steps = {row["rank"]: row["step_iterations"] for row in report["ranks"]}
    used = {rank: [number for number in _timed(shard) if number >= _FIRST_USED] for rank, shard in shards.items()}
    assert steps == used, "not the steps of the shards"
    assert f"{len(shards)} of {_RANKS} ranks recorded" in merged.stdout
    assert report["run"]["missing_ranks"] == sorted(set(range(_RANKS)) - shards.keys())
    incomplete = {int(rank) for rank in report["run"]["incomplete"]}
    assert incomplete == (set() if complete else shards.keys()), "killed, and called complete; or the other way round"


KILLS = Kind(
    "kills", kill, VERDICTS, "no finished step is missing from shard or report, and the exit code is torchrun's"
)
