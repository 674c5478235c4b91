"""``distprof merge``: one report from the shards of all ranks."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from distprof.commands.progress import Progress
from distprof.commands.taken import takes
from distprof.config import chosen_file, decide, read_config
from distprof.errors import DataError, UsageError
from distprof.merge import plots
from distprof.merge.analyse import analyse
from distprof.merge.jsonout import to_json
from distprof.merge.load import load_run
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render
from distprof.merge.text.colour import coloured
from distprof.merge.write import write_files
from distprof.options import REPORT, SHOWN, Layer
from distprof.rundir import PLOTS, RunDir


@click.command(epilog="Example: distprof merge runs/train-20250131-101500 --depth 3 --no-plots")
@click.argument("run", type=click.Path(path_type=Path))
@takes(REPORT)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report.  [default: RUN/report]"
)
def command(run: Path, out: Path | None, config: Path | None, **given: object) -> None:
    """Make one report from the shards of all ranks of RUN, the folder that 'distprof run' named at its end.

    Prints the report, and writes it as summary.txt, summary.json and plots.  Works while the job still runs, with ranks
    missing, and in a folder to which shards were copied from several machines.

    What is not given here is taken from the environment (DISTPROF_DEPTH, ...), then from the configuration file, then
    from what the job was started with.
    """
    progress = Progress(sys.stderr)
    asked = decide(REPORT, given, os.environ, read_config(chosen_file(config, os.environ)))
    loaded = load_run(run, progress.files)
    chosen = {name: value.value for name, value in {**_kept(RunDir(run)), **asked}.items()}
    report = analyse(loaded)
    text = render(report, _text_options(chosen))
    pictures = _draw(report, progress) if chosen.get("plots", True) else {}
    folder = out or RunDir(run).report
    contents = {"summary.txt": text.encode(), "summary.json": to_json(report).encode(), **pictures}
    write_files(folder, contents, obsolete=_all_pictures() - pictures.keys())
    progress.clear()
    output_file = str(chosen.get("output_file", "-"))
    if output_file == "-":
        _show(text)
    else:
        _write_text(text, Path(output_file))
    drawn = f", plots in {folder / PLOTS}" if pictures else ""
    click.echo(f"distprof: report in {folder}{drawn}", err=True)


def _kept(run: RunDir) -> Layer:
    """How the run itself wants to be shown."""
    manifest = run.read_manifest()
    try:
        return {
            option.name: option.checked(manifest.shown[option.name], f"{option.name!r} in {run.manifest}")
            for option in SHOWN
            if manifest and option.name in manifest.shown
        }
    except UsageError as error:
        raise DataError(str(error)) from None


def _text_options(chosen: Mapping[str, Any]) -> TextOptions:
    depth = chosen.get("depth", -1)
    return TextOptions(None if depth < 0 else depth, chosen.get("top", 3), chosen.get("detailed", True))


def _write_text(text: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the report cannot be written to {path} ({error.strerror}): choose another --output-file, or - for stdout"
        ) from None
    click.echo(f"distprof: text of the report in {path}", err=True)


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
