"""``distprof exec``: any launcher that keeps the environment, with a recorder in every rank that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import click

from distprof.commands.click_options import with_options
from distprof.config.options import RUN
from distprof.launcher import child_process
from distprof.launcher.job import record_job
from distprof.launcher.run_setup import Job, choose_options


@click.command(context_settings={"allow_interspersed_args": False})
@with_options(RUN)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def command(words: tuple[str, ...], **given: object) -> None:
    """Start CMD, with a recorder in every rank that it starts; its signals and its exit code go through.

    CMD is any launcher that passes its environment on to the ranks.  The last line has the folder for 'distprof merge'.

    \b
      distprof exec -- srun python train.py
      distprof exec --warmup 50 --merge -- torchrun --nproc-per-node 8 train.py
      distprof exec --config ds_config.json -- deepspeed train.py --deepspeed_config ds_config.json
    """
    child_process.check_command(words[0])
    options = choose_options(given)
    job = _job(words, options.name)
    sys.exit(
        child_process.end_like(
            record_job(options, job, lambda variables: child_process.run(words, {**os.environ, **variables}))
        )
    )


def _job(words: tuple[str, ...], name: str | None) -> Job:
    step = _step(os.environ)
    if not step:
        return Job(words, title(words))
    speaks = os.environ.get("SLURM_PROCID") == "0"
    return Job(words, title(words), name or f"job-{step}", speaks=speaks, step=step)


def title(command: Sequence[str]) -> str:
    """Returns the title of a job: the name of its script, its module (``-m``), else the program."""
    for argument in command:
        if argument.endswith(".py"):
            return Path(argument).stem
    for flag, module in pairwise(command):
        if flag == "-m":
            return module
    return Path(command[0]).name


def _step(environment: Mapping[str, str]) -> str:
    """Returns the id of the Slurm step whose tasks are ``distprof exec``; empty outside of one."""
    if environment.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return ""
    return f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID', '0')}"
