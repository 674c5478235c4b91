"""``distprof merge``: one report from the shards of all ranks."""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from distprof.commands.chosen_run import chosen_runs
from distprof.commands.click_options import decided_options, with_options
from distprof.commands.progress import Progress
from distprof.commands.report_output import text_options, write_report
from distprof.config.option_sources import with_defaults
from distprof.config.options import OUT, REPORT, STDOUT
from distprof.config.run_options import options_of_run
from distprof.console import say
from distprof.merge import plots
from distprof.merge.analyse import analyse
from distprof.merge.export.beside import Maker, made_beside
from distprof.merge.export.files import Content, write_files
from distprof.merge.export.json import to_json
from distprof.merge.export.paper import FORMS, render_tables
from distprof.merge.export.table_files import csv_files, csv_names, parquet_files, parquet_names
from distprof.merge.export.tables import MOST_TEXT_ROWS, NAMES, all_tables, text_tables
from distprof.merge.export.tables.table import Table
from distprof.merge.load.dask import on_dask
from distprof.merge.load.reading import in_processes
from distprof.merge.load.run import load_run
from distprof.merge.report import Report
from distprof.merge.text import render, render_first_page
from distprof.peaks.cache import cache_file, read_peak_cache
from distprof.peaks.table import Peaks
from distprof.run_folder import PAGE, PLOTS, SUMMARY, RunFolder
from distprof.run_folder import REPORT as REPORT_FOLDER

#: A process for one file takes some ms to begin: the time that it makes a hundred ranks in.
_MANY_RANKS = 1_000


@click.command(
    epilog="""\b
Examples:
  distprof merge                                                                  the newest run in runs/
  distprof merge runs/train-20250131-101500
  distprof merge runs/train-20250131-101500 --full --depth 2 --no-plots           all of it, on the terminal
  distprof merge copied/ --out report                                             of shards copied together
  distprof merge node0/NAME node1/NAME                                            a folder of each node
  distprof merge s3://BUCKET/RUNS/NAME                                            of a job with --out s3://BUCKET/RUNS
"""
)
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@with_options(REPORT)
@click.option(
    "--window",
    type=click.IntRange(min=0),
    metavar="N",
    help="The number of the recording window to show, where there are several.  [default: the last one]",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Read the run on the workers of the Dask cluster whose scheduler is at this address (tcp://HOST:8786).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report.  [default: RUN/report]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMS)),
    help="Print the main tables in this form instead of the first page, for a paper or an issue.",
)
def command(
    runs: tuple[str, ...],
    out: Path | None,
    window: int | None,
    form: str | None,
    dask: str | None,
    config: Path | None,
    **given: object,
) -> None:
    """Make one report from the shards of all ranks of RUN, the folder that 'distprof run' named at its end.

    Without RUN, the newest run in runs/ (in the folder of DISTPROF_OUT or of the configuration file, if they name one).
    Several folders are those of one job whose nodes had no folder in common: the report is written into the first one.
    A URL, where a job with --out URL has put its run, is copied to runs/ first; it needs fsspec, as --out does.

    Prints the first page of the report, and writes all of it as summary.txt, summary.json, tables (CSV), plots, and
    report.html, which a browser shows.  Works while the job still runs, with ranks missing, and in a folder to which
    shards were copied from several machines.

    An option that is not given is read from the environment (DISTPROF_DEPTH=2), else from the configuration file
    (depth = 2), else from that of the job.
    """
    progress = Progress(sys.stderr)
    asked = decided_options((*REPORT, OUT), given, config)
    run, *others = chosen_runs(runs, asked, progress.copies)
    jobs = with_defaults(REPORT, asked)["jobs"]  # before the options of the run: loading says whether it is one
    with without_collection():
        loaded = load_run(run, progress.files, on_dask(dask) if dask else in_processes(jobs), others=others)
        chosen = with_defaults(REPORT, {**options_of_run(RunFolder(run)), **asked})
        report = analyse(loaded, chosen_peaks(chosen), window)
        del loaded  # of a large run it takes as much memory as the report
    pictures = _begin_to_draw(report, progress) if chosen["plots"] else dict
    summary = _summary(report)
    options = replace(text_options(chosen), page=PAGE if chosen["page"] else "")
    text = render(report, options)
    tables = text_tables(report)
    saved = csv_files(tables)
    files = {**saved, **(parquet_files(all_tables(report)) if chosen["parquet"] else {})}
    page = _page(report, saved, progress) if chosen["page"] else {}
    contents = {"summary.txt": text.encode(), SUMMARY: summary(), **page, **files, **pictures()}
    with ExitStack() as in_any_case:  # each of both is done even if the other fails
        in_any_case.callback(_write, run, out, contents)
        shown = text if _is_whole(chosen) else render_first_page(report, options)
        in_any_case.callback(write_report, render_tables(report, form) if form else shown, chosen)
        in_any_case.callback(_say_left_out, tables, chosen)
        in_any_case.callback(progress.clear)


@contextmanager
def without_collection() -> Iterator[None]:
    """Collects no garbage, here and in processes that are forked: loading and analysing a run make many objects and
    hardly a cycle, and looking for cycles took 2 to 4 % of their time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_whole(chosen: Mapping[str, Any]) -> bool:
    """Returns whether to write the whole report; a file always has it."""
    return bool(chosen["full"]) or chosen["output_file"] != STDOUT


def _say_left_out(tables: Mapping[str, Table], chosen: Mapping[str, Any]) -> None:
    for name in NAMES:
        if name not in tables:
            instead = "" if chosen["parquet"] else ": --parquet writes it"
            say(f"tables/{name}.csv is left out, it has more than {MOST_TEXT_ROWS:,} rows{instead}")


def _write(run: Path, out: Path | None, contents: Mapping[str, Content]) -> None:
    """Writes the report to ``out``, or into the run's folder; links in a run's folder are not followed."""
    base, below, folder = (out, "", out) if out else (run, f"{REPORT_FOLDER}/", run / REPORT_FOLDER)
    files = {f"{below}{name}": content for name, content in contents.items()}
    write_files(base, files, obsolete=[f"{below}{name}" for name in _optional_files() - contents.keys()])
    drawn = f", plots in {folder / PLOTS}" if _all_pictures() & contents.keys() else ""
    say(f"report in {folder}{drawn}")


def chosen_peaks(chosen: Mapping[str, Any]) -> Peaks:
    """Returns the peaks of devices: the option's, and those that were measured on this machine."""
    measured, problem = read_peak_cache(cache_file())
    if problem:
        say(problem)
    return Peaks(chosen["peak_tflops"], measured)


def _summary(report: Report) -> Maker:
    """Returns what makes ``summary.json``, which of many ranks is made beside the other files."""

    def make() -> bytes:
        return to_json(report).encode()

    return made_beside(make) if len(report.ranks) >= _MANY_RANKS else make


def _begin_to_draw(report: Report, progress: Progress) -> Callable[[], dict[str, bytes]]:
    """Begins to draw the plots in another process, while this one makes the text, and returns what waits for them."""

    def draw() -> bytes:
        from distprof.merge.plots.parallel import draw_all  # imported here, because only plots need it

        return pickle.dumps(draw_all(report))

    wait = made_beside(draw)

    def files() -> dict[str, bytes]:
        progress.say("draws the plots")
        drawn, problems = pickle.loads(wait())
        for problem in problems:
            say(problem)
        return {f"{PLOTS}/{file}": content for file, content in drawn.items()}

    return files


def _page(report: Report, files: Mapping[str, Content], progress: Progress) -> dict[str, bytes]:
    from distprof.merge.html.page import render_page  # imported here, because only the page needs jinja2

    progress.say("draws the page")
    return {PAGE: render_page(report, files)}


def _optional_files() -> set[str]:
    return {PAGE, *_all_pictures(), *csv_names(), *parquet_names()}


def _all_pictures() -> set[str]:
    return {f"{PLOTS}/{name}.{kind}" for name in plots.NAMES for kind in plots.FORMATS}
