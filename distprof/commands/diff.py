"""``distprof diff``: two runs side by side, once or several times each, with bounds of the noise."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from distprof.commands.merge import chosen_peaks
from distprof.commands.progress import Progress
from distprof.commands.streams import put
from distprof.config.option_sources import with_defaults
from distprof.config.options import SHOWN
from distprof.config.run_options import options_of_run
from distprof.console import say
from distprof.errors import DataError, UsageError
from distprof.merge.analysis import start_analysis
from distprof.merge.diff.compare import compare
from distprof.merge.diff.data import Diff
from distprof.merge.diff.samples import Side, side_of
from distprof.merge.diff.setup import why_no_repetition
from distprof.merge.diff.text import render
from distprof.merge.export.json import plain
from distprof.merge.load.reading import in_processes
from distprof.merge.load.run import load_run
from distprof.merge.wording import join_words
from distprof.printable import printable_json
from distprof.results.loaded_report import load, report_file
from distprof.run_folder import MANIFEST, SHARDS, RunFolder

#: The exit code where the second run is worse than --fail-over allows.
WORSE = 1


@click.command(
    epilog="""\b
Examples:
  distprof diff runs/before runs/after
  distprof diff baseline/summary.json runs/nightly --fail-over 5%        in CI: exit code 1 if it is slower
  distprof diff runs/before runs/after --json > diff.json
  distprof diff runs/before runs/after --html diff.html                  as a page for the browser, too
  distprof diff runs/a1 runs/b1 --again runs/a2 runs/b2 --again runs/a3 runs/b3   three runs of each, in turn
"""
)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "--again",
    type=(click.Path(path_type=Path), click.Path(path_type=Path)),
    multiple=True,
    metavar="FIRST SECOND",
    help="A further run of each, recorded in turn; can be repeated. Three of each find smaller changes, more surely.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the comparison as one HTML page, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@click.option(
    "--fail-over",
    metavar="X%",
    help="Exit with 1 if a figure, a module or a phase is worse by more than X percent, beyond the noise.",
)
def command(
    first: Path,
    second: Path,
    again: tuple[tuple[Path, Path], ...],
    page: Path | None,
    as_json: bool,
    fail_over: str | None,
) -> None:
    """Compare two runs: folders of runs, or the summary.json of their reports, which lacks the times of modules in each
    step.

    Says first whether the second run is slower, and which modules are. Then what differs in the set-up; how iteration,
    throughput, MFU and memory changed, with bounds at 99 % from the steps themselves, widened by the time in which
    threads waited for a processor; the modules and phases that gained or lost most, relative to what all modules have
    in common; collectives, parameters and flops.

    Two runs of one program differ by more than their steps show: the machine is faster or slower for a while. With
    --again, the bounds come from the spread over the runs, too. The set-up, collectives and work are those of the first
    pair.

    Exits with 0, with --fail-over also with 1 (worse) or 2 (the runs cannot be compared).
    """
    limit = None if fail_over is None else _share(fail_over)
    found = compare(_repeated(first, [one for one, _ in again]), _repeated(second, [other for _, other in again]))
    if page is not None:
        _write_page(found, page)
    put(printable_json(json.dumps(plain(found), ensure_ascii=False, indent=1)) + "\n" if as_json else render(found))
    if limit is None:
        return
    if found.why_not:
        raise UsageError(f"the runs cannot be compared: {found.why_not}")
    worse = found.worse_by(limit)
    if worse:
        say(f"the second run is worse by more than {100 * limit:g}%: {join_words(worse)}")
        sys.exit(WORSE)


def _write_page(found: Diff, path: Path) -> None:
    from distprof.merge.diff.page.page import render_page  # imported here, because only the page needs jinja2

    content = render_page(found)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise DataError(f"the page cannot be written to {path} ({error.strerror}): choose another --html") from None
    say(f"page of the comparison in {path}")


def _repeated(path: Path, again: Sequence[Path]) -> Side:
    """Returns the run with its repetitions.  Raises UsageError if one of them was started in another way."""
    side, others = _side(path), tuple(map(_side, again))
    for other_path, other in zip(again, others, strict=True):
        if why := why_no_repetition(side.report, other.report):
            raise UsageError(f"{other_path} is no further run of {path}: {why}")
    return replace(side, again=others)


def _side(path: Path) -> Side:
    if path.name == SHARDS and (path.parent / MANIFEST).is_file():
        path = path.parent
    if report_file(path) is not None:
        return Side(load(path).report)
    progress = Progress(sys.stderr)
    run = load_run(path, progress.files, in_processes())
    progress.clear()
    chosen = with_defaults(SHOWN, options_of_run(RunFolder(path)))
    return side_of(start_analysis(run, chosen_peaks(chosen)))


def _share(text: str) -> float:
    """Returns 0.05 for ``5%`` and for ``5``."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent < float("inf"):
        raise UsageError(f"fail-over is {text!r}: give a number of percent, such as 5%")
    return percent / 100
