"""``distprof status``: one paragraph about a running job."""

from __future__ import annotations

from pathlib import Path

import click

from distprof.commands.chosen_run import chosen_run
from distprof.commands.click_options import decided_options, with_options
from distprof.commands.live.paragraph import paragraph
from distprof.commands.streams import put
from distprof.config.options import OUT
from distprof.launcher.daemon.client import DaemonClient
from distprof.launcher.daemon.job_view import view
from distprof.printable import on_one_line
from distprof.run_folder import RunFolder


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@with_options((OUT,))
def command(run: Path | None, config: Path | None, **given: object) -> None:
    """Say in one paragraph how the job that writes into RUN is: its iterations, its pace, and which ranks are not well.

    Without RUN, of the newest run in runs/.
    """
    path = chosen_run(run, decided_options((OUT,), given, config))
    put(on_one_line(f"{path}: {paragraph(view(DaemonClient(RunFolder(path)).nodes()))}") + "\n")
