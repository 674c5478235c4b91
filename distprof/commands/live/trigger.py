"""``distprof trigger``: a recording window in a running job."""

from __future__ import annotations

import time
from pathlib import Path

import click

from distprof.commands.live.running_job import RunningJob, with_running_job
from distprof.config.options import DEFAULTS
from distprof.console import say
from distprof.errors import DataError, UsageError
from distprof.launcher.daemon.client import DaemonClient
from distprof.launcher.daemon.requests import WindowRequest
from distprof.launcher.daemon.trigger import Answers, answers, plan_request
from distprof.rank_names import rank_names
from distprof.run_folder import RunFolder

_POLL_S = 0.3
#: A trace is made in memory: some megabytes an iteration.
_MOST_TRACED = 1000


@click.command(
    epilog="""\b
Examples:
  distprof trigger runs/NAME                          as many iterations as 'distprof run' times by default
  distprof trigger runs/NAME --timed 50 --no-count
  distprof trigger runs/NAME --ranks 0,8,16-23
  distprof trigger runs/NAME --traced 3 --ranks 0     three iterations of rank 0 by torch.profiler
"""
)
@with_running_job
@click.option(
    "--timed",
    type=click.IntRange(min=0),
    help=f"Iterations to time.  [default: {DEFAULTS['timed']}, with --traced 0]",
)
@click.option(
    "--count/--no-count", default=None, help="Count flops in one iteration before.  [default: count, if any are timed]"
)
@click.option(
    "--traced",
    type=click.IntRange(min=0, max=_MOST_TRACED),
    default=0,
    metavar="N",
    help="Iterations after these of which torch.profiler writes a trace, for Perfetto and Holistic Trace Analysis.",
)
@click.option("--ranks", metavar="LIST", help="Only these ranks, as in 0,8,16-23.  [default: all]")
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=86_400),
    default=60.0,
    show_default=True,
    metavar="S",
    help="The longest wait for the answers of the ranks.",
)
def command(
    job: RunningJob, timed: int | None, count: bool | None, traced: int, ranks: str | None, wait: float
) -> None:
    """Record a further window in the job that writes into RUN, while it runs; any number of times.

    All ranks begin it at the same iteration, one that none of them has reached yet.  No rank waits for another one.  A
    rank that has passed it when it hears of it refuses, and the last line says so.  'distprof merge --window N' shows
    the window.  Without RUN, the newest run in runs/ is used.

    --traced N adds traces of torch.profiler: RUN/traces/windowN/rankM.json.gz, in the run folder of the rank's node.  A
    traced rank is slower meanwhile, and stops until its trace is written.  A profiler of the script itself comes first.
    """
    if timed is None:
        timed = 0 if traced else DEFAULTS["timed"]
    if count is None:
        count = bool(timed) and DEFAULTS["count"]
    if not timed and not count and not traced:
        raise UsageError("nothing is left to record: --timed is 0 and counting is off")
    client = job.client
    chosen = None if ranks is None else parse_ranks(ranks)
    request = plan_request(client.nodes(), int(count), timed, chosen, client.last_request(), traced)
    client.send(request)
    given_answers = _wait(client, request, wait)
    say(outcome(job.path, request, given_answers))
    if not given_answers.accepted:
        raise DataError("no rank records the window")


def parse_ranks(text: str) -> set[int]:
    """Returns the ranks of a list as ``0,8,16-23``.  Raises UsageError for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 14:
            raise UsageError(f"--ranks {text!r} is no list of ranks: give numbers, as in 0,8,16-23")
        begin, end = int(first), int(last or first)
        if end < begin or end - begin > 1_000_000:
            raise UsageError(f"--ranks {text!r} is no list of ranks: {part} has no end after its begin")
        found.update(range(begin, end + 1))
    return found


def _wait(client: DaemonClient, request: WindowRequest, seconds: float) -> Answers:
    """Returns the answers, once all ranks have given theirs or the time is up."""
    until = time.monotonic() + seconds
    found = answers(client.nodes(), request)
    while found.silent and time.monotonic() < until:
        time.sleep(_POLL_S)
        found = answers(client.nodes(), request)
    return found


def outcome(path: Path, request: WindowRequest, found: Answers) -> str:
    """Returns a line that says which ranks record the window, and why the others do not."""
    parts = []
    if found.accepted:
        asked = len(found.accepted) + len(found.refused) + len(found.silent)
        parts.append(
            f"{len(found.accepted)} of {asked} ranks record window {request.window} from iteration {request.start} on"
            f"  ->  {_result(path, request)}"
        )
    reasons: dict[str, list[int]] = {}
    for rank, reason in found.refused.items():
        reasons.setdefault(reason, []).append(rank)
    parts += [f"{rank_names(ranks)} refused: {reason}" for reason, ranks in reasons.items()]
    parts += [f"{rank_names(found.silent)} did not answer yet"] if found.silent else []
    return "; ".join(parts)


def _result(path: Path, request: WindowRequest) -> str:
    """Returns what shows the window: a command, the traces of torch.profiler, or both."""
    shown = [f"distprof merge {path} --window {request.window}"] if request.counted or request.timed else []
    traces = [f"{RunFolder(path).trace_path(request.window, 0).parent}/"] if request.traced else []
    return " and ".join([*shown, *traces])
