"""``distprof merge``: one report from the shards of all ranks."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from distprof.commands.progress import Progress
from distprof.merge import plots
from distprof.merge.analyse import analyse
from distprof.merge.jsonout import to_json
from distprof.merge.load import load_run
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render
from distprof.merge.text.colour import coloured
from distprof.merge.write import write_files
from distprof.rundir import PLOTS, RunDir


@click.command(epilog="Example: distprof merge runs/train-20250131-101500 --depth 3")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--depth", type=click.IntRange(min=0), help="Show the module tree down to this depth.  [default: all of it]"
)
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes of module shown per depth."
)
@click.option("--no-detail", is_flag=True, help="Leave out the module tree.")
@click.option("--no-plots", is_flag=True, help="Draw no plots, and remove those of an earlier merge.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the report.  [default: RUN/report]")
def command(run: Path, depth: int | None, top: int, no_detail: bool, no_plots: bool, out: Path | None) -> None:
    """Make one report from the shards of all ranks of RUN, the folder that 'distprof run' named at its end.

    Prints the report, and writes it as summary.txt, summary.json and plots.  Works while the job still runs, with ranks
    missing, and in a folder to which shards were copied from several machines.
    """
    progress = Progress(sys.stderr)
    report = analyse(load_run(run, progress.files))
    text = render(report, TextOptions(depth, top, detail=not no_detail))
    pictures = {} if no_plots else _draw(report, progress)
    folder = out or RunDir(run).report
    contents = {"summary.txt": text.encode(), "summary.json": to_json(report).encode(), **pictures}
    write_files(folder, contents, obsolete=_all_pictures() - pictures.keys())
    progress.clear()
    _show(text)
    drawn = f", plots in {folder / PLOTS}" if pictures else ""
    click.echo(f"distprof: report in {folder}{drawn}", err=True)


def _draw(report: Report, progress: Progress) -> dict[str, bytes]:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # what it says of its caches is nothing to the user
    pictures = {}
    for name in plots.NAMES:
        progress.say(f"draws {name}")
        pictures.update({f"{PLOTS}/{file}": content for file, content in plots.draw(name, report).items()})
    return pictures


def _all_pictures() -> set[str]:
    return {f"{PLOTS}/{name}.{kind}" for name in plots.NAMES for kind in plots.FORMATS}


def _show(text: str) -> None:
    """Print to a terminal in colour, in any encoding, and to a reader that goes away (``| head``)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text = coloured(text)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
