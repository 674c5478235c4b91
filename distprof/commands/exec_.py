"""``distprof exec``: any launcher that keeps the environment, with a recorder in every rank that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import click

from distprof.launcher import child
from distprof.launcher.recording import OPTION_HELP, Job, Options
from distprof.launcher.session import record_job


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), metavar="DIR", help=OPTION_HELP["--out"])
@click.option("--name", metavar="NAME", help=OPTION_HELP["--name"])
@click.option("--warmup", type=int, metavar="N", help=OPTION_HELP["--warmup"])
@click.option("--timed", type=int, metavar="N", help=OPTION_HELP["--timed"])
@click.option("--no-count", is_flag=True, help=OPTION_HELP["--no-count"])
@click.option("--merge", is_flag=True, help=OPTION_HELP["--merge"])
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def command(
    out: Path,
    name: str | None,
    warmup: int | None,
    timed: int | None,
    no_count: bool,
    merge: bool,
    words: tuple[str, ...],
) -> None:
    """Start CMD, with a recorder in every rank that it starts; its signals and its exit code go through.

    \b
      distprof exec -- torchrun --nproc-per-node 8 train.py
      distprof exec -- srun python train.py
    """
    child.check(words[0])
    options = Options(out, name, warmup, timed, False if no_count else None, merge)
    code = record_job(options, _job(words, name), lambda variables: child.run(words, {**os.environ, **variables}))
    sys.exit(child.end_like(code))


def _job(words: tuple[str, ...], name: str | None) -> Job:
    shared = _shared_name(name, os.environ)
    return Job(words, title(words), shared, speaks=not shared or os.environ.get("SLURM_PROCID") == "0")


def title(command: Sequence[str]) -> str:
    """What to call a job: its script, its module (``-m``), else the program."""
    for argument in command:
        if argument.endswith(".py"):
            return Path(argument).stem
    for flag, module in pairwise(command):
        if flag == "-m":
            return module
    return Path(command[0]).name


def _shared_name(name: str | None, environment: Mapping[str, str]) -> str | None:
    """The name that the tasks of one ``srun distprof exec`` share, None outside of one."""
    if environment.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return None
    return name or f"job-{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID', '0')}"
