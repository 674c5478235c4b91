"""What goes before and around a job: its run folder, and the two environment variables that reach its ranks."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import distprof
from distprof import rundir
from distprof.clock import SystemClock
from distprof.errors import UsageError
from distprof.rundir import Manifest, RunDir
from distprof.say import say
from distprof.settings import Settings, resolve, write_settings

_INJECTED = Path(distprof.__file__).parent / "inject" / "sitecustomize.py"


@dataclass(frozen=True)
class Options:
    """Our own options of ``run`` and ``exec``; None leaves the choice to the environment, then to the default."""

    out: Path = Path("runs")
    name: str | None = None
    warmup: int | None = None
    timed: int | None = None
    count: bool | None = None
    merge: bool = False


#: What they mean, for the help of both commands.
OPTION_HELP = {
    "--out": "where run folders are made (default: runs)",
    "--name": "name of the run (default: from the job, else from script and time)",
    "--warmup": "iterations to leave unwatched at first (default: 5)",
    "--timed": "iterations to time, after one in which flops are counted (default: 10)",
    "--no-count": "count no flops",
    "--merge": "merge when the job has ended",
}


@dataclass(frozen=True)
class Job:
    """What is known of a job before it starts."""

    command: tuple[str, ...]
    title: str  # what its script is called
    shared_name: str | None = None  # the run's name, where several processes that cannot talk must agree on it
    world_size: int = 0  # 0: only the ranks will know
    host: str = ""  # this one, where it is one of several: the launcher answers for its own ranks only
    host_ranks: int = 0  # how many these are; 0: not known
    speaks: bool = True  # where each rank has a launcher, one of them says what came of the run


def prepare(options: Options, job: Job) -> RunDir | None:
    """Make the run folder with all that the ranks need in it.

    The job comes first: where ``options.out`` will not do, a temporary folder does; where that fails too, None.
    Raises UsageError for settings that make no sense.
    """
    settings = resolve(warmup=options.warmup, timed=options.timed, count=options.count)
    try:
        return _fill(options.out, options.name, settings, job)
    except (OSError, UsageError) as error:
        problem = str(error)
    try:
        run = _fill(Path(tempfile.mkdtemp(prefix="distprof-")), options.name, settings, job)
    except (OSError, UsageError):
        say(f"{problem}; nor is there a temporary folder: the job runs without a recording")
        return None
    say(f"{problem}; recording in {run.path} instead")
    return run


def environment(run: RunDir, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that ranks need on top of ``inherited``."""
    behind = inherited.get("PYTHONPATH")
    inject = str(run.inject.absolute())
    return {
        "PYTHONPATH": f"{inject}{os.pathsep}{behind}" if behind else inject,
        "DISTPROF_RUN": str(run.path.absolute()),
    }


def _fill(out: Path, name: str | None, settings: Settings, job: Job) -> RunDir:
    if os.pathsep in str(out.absolute()):
        raise UsageError(f"{out.absolute()} holds a {os.pathsep!r}, which PYTHONPATH cannot carry")
    name = rundir.safe_name(name or job.shared_name or f"{job.title}-{time.strftime('%Y%m%d-%H%M%S')}")
    run = rundir.create(out, name, shared=job.shared_name is not None)
    run_id = name if job.shared_name else f"{run.path.name}-{uuid.uuid4().hex[:12]}"
    _put_injected(run)
    write_settings(replace(settings, run_dir=str(run.path.absolute()), run_id=run_id), run.inject)
    run.write_manifest(Manifest(run_id, run.path.name, job.command, job.world_size, SystemClock.wall_ns()))
    return run


def _put_injected(run: RunDir) -> None:
    rundir.write_whole(run.inject / _INJECTED.name, _INJECTED.read_text(encoding="utf-8"))
