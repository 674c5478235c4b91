"""``distprof log``: hands a report to an experiment tracker."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from distprof.commands.chosen_run import chosen_run
from distprof.console import say
from distprof.merge.text import render_first_page
from distprof.results.loaded_report import load
from distprof.run_folder import REPORT
from distprof.trackers.figures import figures_of

_TRACKERS = ("tensorboard", "wandb", "mlflow")


@click.command(
    epilog="""\b
Examples:
  distprof log --to tensorboard                        the newest run in runs/
  WANDB_MODE=offline distprof log runs/job-17 --to wandb --project speed
"""
)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--to", type=click.Choice(_TRACKERS), required=True, help="The tracker.")
@click.option("--project", default="distprof", show_default=True, help="Project of wandb, or experiment of mlflow.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=f"The folder of local files.  [default: RUN/{REPORT}/TRACKER]",
)
@click.option("--plots/--no-plots", default=True, show_default=True, help="Hand over pictures, too.")
def command(run: Path | None, to: str, project: str, out: Path | None, plots: bool) -> None:
    """Write the figures and the pictures of RUN into an experiment tracker, as one run of it.

    Without RUN, the newest run in runs/.  Servers and log-ins are those of the tracker's own settings, such as
    WANDB_MODE and MLFLOW_TRACKING_URI.

    Needs the tracker's package: pip install 'distprof[tensorboard]', 'distprof[wandb]' or 'distprof[mlflow]'.
    """
    run = chosen_run(run, {})
    report = load(run).report
    figures = figures_of(report, render_first_page(report), pictures=plots)
    folder = out or run / REPORT / to
    tracker = import_module(f"distprof.trackers.{to}")
    where = tracker.log(figures, folder) if to == "tensorboard" else tracker.log(figures, folder, project)
    say(f"{len(figures.scalars)} figures and {len(figures.pictures)} pictures are in {to}: {where}")
