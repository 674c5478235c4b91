"""``distprof top``: the ranks of a running job."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from distprof.commands.live.rows import SORT_KEYS
from distprof.commands.live.running_job import RunningJob, with_running_job
from distprof.commands.streams import put
from distprof.errors import UsageError
from distprof.launcher.daemon.client import DaemonClient
from distprof.launcher.daemon.job_view import JobView, view
from distprof.printable import printable_json


@click.command(
    epilog="""\b
Examples:
  distprof top                              the newest run in runs/, until the job ends or Ctrl-C
  distprof top runs/NAME --sort lag
  distprof top --once --json | jq '.ranks[] | {rank, iteration}'
"""
)
@with_running_job
@click.option("--once", is_flag=True, help="Show the ranks once.")
@click.option("--json", "as_json", is_flag=True, help="Print the ranks as one JSON document, and end.")
@click.option("--sort", type=click.Choice(SORT_KEYS), default="rank", show_default=True, help="The order of the ranks.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds from one look to the next.",
)
def command(job: RunningJob, once: bool, as_json: bool, sort: str, interval: float) -> None:
    """Show the ranks of the job that writes into RUN: iteration, pace, phase, module, waits, memory, lag.

    Without RUN, of the newest run in runs/.  Works on every machine that sees the run's folder.

    A rank is stuck if its iteration takes longer than 60 s (--stall of the job) and than 20 times the 99th percentile
    of its own.  It is slow if it is 2 iterations behind the furthest rank, if its iterations take 1.25 times as long as
    the median of the ranks, or if it is the slowest again and again.

    "waits" is the share of the last minute in which a rank waited for another one in a collective.  "slowest" counts
    the last iterations in which one rank of the node was seen to be the slowest: "31 of 50".  Both are samples of
    the time between the windows, taken every 0.4 s.

    Module and collective are shown in recording windows.  A collective has no op where C++ code other than
    DDP's starts it.
    """
    seen = view(job.client.nodes())
    if as_json:
        document = {"run": str(job.path), **seen.fields()}
        put(printable_json(json.dumps(document, ensure_ascii=False, indent=2)) + "\n")
        return
    table = _table()
    if once or not sys.stdout.isatty():
        put(table.text(seen, sort))
        return
    with table.live() as show, _ended_by_ctrl_c():
        for current in _looks(job.client, seen, interval):
            show(current, sort)


def _looks(client: DaemonClient, seen: JobView, interval: float) -> Iterator[JobView]:
    """Yields the job now and then, until no rank runs any more."""
    yield seen
    while seen.runs or seen.awaits_ranks:
        time.sleep(interval)
        seen = view(client.nodes())
        yield seen


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        return


def _table() -> Any:
    try:
        return import_module("distprof.commands.live.table")
    except ImportError:
        raise UsageError(
            "'distprof top' draws its table with rich: pip install 'distprof[top]', or give --json"
        ) from None
