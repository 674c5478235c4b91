"""``distprof export``: writes a run in the format of another tool."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import click

from distprof.commands.chosen_run import chosen_run
from distprof.commands.progress import Progress
from distprof.console import say
from distprof.errors import DataError
from distprof.merge.analyse import analyse
from distprof.merge.analysis import start_analysis
from distprof.merge.export.files import write_files
from distprof.merge.export.perfetto import PerfettoTrace
from distprof.merge.load.rank import RankData
from distprof.merge.load.reading import in_processes
from distprof.merge.load.run import load_run
from distprof.merge.report import Report
from distprof.merge.text.blocks.header import shifted_clocks_words
from distprof.merge.text.blocks.verdict import verdict
from distprof.merge.trace.model import RankTrace, Slice, Value
from distprof.merge.trace.run_trace import run_trace
from distprof.records import Record
from distprof.run_folder import REPORT, RunFolder
from distprof.shard.decoding import RecordCache
from distprof.shard.reader import read_shard

TRACE = "trace.perfetto-trace.gz"
#: Most of what is saved is saved by the lowest level.
_COMPRESSION = 1


@click.command(
    epilog="""\b
Example: a trace of all ranks, for https://ui.perfetto.dev
  distprof export runs/train-20250131-101500 --to perfetto
"""
)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--to", type=click.Choice(["perfetto"]), default="perfetto", help="The tool.  [default: perfetto]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"The file to write, compressed with gzip.  [default: RUN/{REPORT}/{TRACE}]",
)
def command(run: Path | None, to: str, out: Path | None) -> None:
    """Write the timed steps of all ranks of RUN as one trace, to be opened in ui.perfetto.dev.

    Without RUN, the newest run in runs/.  Each rank is a process with tracks for iterations, phases, modules (what took
    1 ms or more without a break), collectives with arrows among their members, and pauses, and with counters for
    memory, samples and tokens.  Traces of torch.profiler, which 'distprof trigger --traced' makes, follow.  All ranks
    stand on the clock of one host, if the job compared the clocks of its hosts.

    Needs the package perfetto: pip install 'distprof[perfetto]'.
    """
    progress = Progress(sys.stderr)
    run = chosen_run(run, {})
    loaded = load_run(run, progress.files, in_processes())
    report, analysis = analyse(loaded), start_analysis(loaded)
    cache = RecordCache()
    ranks = run_trace(analysis, report, lambda data: _read(run, data, cache), RunFolder(run))
    content = BytesIO()
    with gzip.GzipFile("", "wb", _COMPRESSION, content, mtime=0) as stream:
        written = PerfettoTrace(stream)
        span = _write_ranks(written, ranks, progress, len(analysis.ranks))
        if span:
            written.add_annotation("verdict", _verdict(report, span))
    base, name = (out.parent, out.name) if out else (run, f"{REPORT}/{TRACE}")
    write_files(base, {name: content.getvalue()})
    progress.clear()
    if report.clocks.shifted:
        say(shifted_clocks_words(report.clocks))
    elif report.clocks.unknown:
        say(f"{report.clocks.unknown}: ranks of these hosts are drawn on their own wall clocks")
    say(f"trace of {len(analysis.ranks)} ranks in {base / name}, to be opened in https://ui.perfetto.dev")


def _read(run: Path, data: RankData, cache: RecordCache) -> Sequence[Record]:
    for path in RunFolder(run).shard_files():
        if path.name == data.source:
            return read_shard(path, cache).records
    raise DataError(f"{data.source} is no longer in {run}")


def _write_ranks(
    written: PerfettoTrace, ranks: Iterator[RankTrace], progress: Progress, total: int
) -> tuple[int, int] | None:
    """Writes all ranks.  Returns when the first slice begins and the last one ends."""
    first: list[int] = []
    last: list[int] = []
    for number, trace in enumerate(ranks, 1):
        written.add_rank(trace)
        for why in trace.left_out:
            say(why)
        first += [one.start_ns for track in trace.tracks for one in track.slices]
        last += [one.end_ns for track in trace.tracks for one in track.slices]
        first, last = [min(first)] if first else [], [max(last)] if last else []
        progress.say(f"wrote {number} of {total} ranks")
    return (first[0], last[0]) if first else None


def _verdict(report: Report, span: tuple[int, int]) -> Iterator[Slice]:
    """Yields what the report concludes, over the whole time, with what is known of the clocks."""
    words = " ".join(" ".join(verdict(report)).split())
    clocks: dict[str, Value] = {"clocks": report.clocks.unknown} if report.clocks.unknown else {}
    if report.clocks.error_ns:
        clocks["clocks: largest error between two hosts (us)"] = round(report.clocks.error_ns / 1e3, 3)
    if words:
        yield Slice(words, *span, clocks)
