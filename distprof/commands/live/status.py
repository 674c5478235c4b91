"""``distprof status``: one paragraph about a running job."""

from __future__ import annotations

import click

from distprof.commands.live.paragraph import paragraph
from distprof.commands.live.running_job import RunningJob, with_running_job
from distprof.commands.streams import put
from distprof.launcher.daemon.job_view import view
from distprof.printable import on_one_line


@click.command()
@with_running_job
def command(job: RunningJob) -> None:
    """Say in one paragraph how the job that writes into RUN is: its iterations, its pace, and which ranks are not well.

    Without RUN, of the newest run in runs/.
    """
    put(on_one_line(f"{job.path}: {paragraph(view(job.client.nodes()))}") + "\n")
