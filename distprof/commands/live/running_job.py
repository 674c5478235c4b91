"""The run that a command for a running job works on: its folder, and the way to its daemons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from distprof.commands.chosen_run import chosen_run
from distprof.commands.click_options import decided_options, with_options
from distprof.config.options import OUT
from distprof.errors import UsageError
from distprof.launcher.daemon.client import DaemonClient
from distprof.run_folder import RunFolder


@dataclass(frozen=True)
class RunningJob:
    """The job that writes into the folder ``path``."""

    path: Path
    client: DaemonClient


def with_running_job(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the argument RUN to a command, which gets a :class:`RunningJob` as ``job``: of the newest run without it."""

    @click.argument("run", type=click.Path(path_type=Path), required=False)
    @with_options((replace(OUT, text="folder of the runs, of which the newest is taken where RUN is not given"),))
    @functools.wraps(function)
    def command(run: Path | None, config: Path | None, out: Any, **given: Any) -> None:
        path = chosen_run(run, decided_options((OUT,), {OUT.name: out}, config))
        if not path.is_dir():
            raise UsageError(f"{path} does not exist: give the folder that `distprof run` writes into")
        function(RunningJob(path, DaemonClient(RunFolder(path))), **given)

    return command
