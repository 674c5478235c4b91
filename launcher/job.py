"""Runs a recorded job: prepares the run folder, starts the job, and reports what was recorded."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping

from distprof.config.options import unknown_variables
from distprof.console import say
from distprof.launcher.child_process import children_waited_for
from distprof.launcher.daemon.start import start_daemon
from distprof.launcher.job_summary import last_line, read_rank_summaries
from distprof.launcher.run_setup import Job, RunOptions, environment, prepare
from distprof.run_folder import RunFolder

#: ``python -m`` would put the current folder first on the path, so that a user's numpy.py would hide numpy.
_MERGE = "import sys; sys.path = [p for p in sys.path if p]; from distprof.__main__ import main; main()"


def record_job(options: RunOptions, job: Job, start: Callable[[Mapping[str, str]], int]) -> int:
    """Runs ``start`` with the variables that make its ranks record.  Returns and raises the same as ``start``."""
    if job.speaks:
        for remark in options.remarks:
            say(remark)
    if options.off:
        if job.speaks:
            say(f"the job is not recorded: {options.off} says no")
        return start({})
    run = prepare(options, job)
    if run is None:
        return start({})
    lifeline = start_daemon(run) if options.daemon and job.on_this_node else None
    try:
        return start(environment(run, os.environ))
    finally:
        if lifeline is not None:
            lifeline.close()
        try:
            _close(run, options, job)
        except Exception as error:  # the job has ended, and its outcome must not change
            say(f"cannot say what was recorded in {run.path}: {error!r}")


def _close(run: RunFolder, options: RunOptions, job: Job) -> None:
    outcomes, unread = read_rank_summaries(run, job.host)
    # The node with rank 0 merges.
    merging = options.merge and job.speaks and any(outcome.header.rank == 0 or not job.host for outcome in outcomes)
    if job.speaks:
        say(last_line(run, job, outcomes, unread, merging=merging))
    if merging:
        _merge(run, options)


def _merge(run: RunFolder, options: RunOptions) -> None:
    path = str(run.path)
    config = ["--config", str(options.config)] if options.config else []
    unread = unknown_variables(os.environ)  # the user knows of them by now
    variables = {name: value for name, value in os.environ.items() if name not in unread}
    with children_waited_for():
        ended = subprocess.run([sys.executable, "-c", _MERGE, "merge", path, *config], check=False, env=variables)
    if ended.returncode:
        say(f"merging ended with exit code {ended.returncode}; the shards are safe: distprof merge {shlex.quote(path)}")
