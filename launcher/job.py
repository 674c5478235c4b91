"""Runs a recorded job: prepares the run folder, starts the job, and reports what was recorded."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from distprof.config.option_sources import unknown_variables
from distprof.console import say
from distprof.errors import said
from distprof.launcher.child_process import children_waited_for
from distprof.launcher.daemon.start import start_daemon
from distprof.launcher.job_summary import last_line, read_rank_summaries
from distprof.launcher.node_link import Gathered, NodeLink
from distprof.launcher.recording_now import RecordingNow
from distprof.launcher.remote.run_files import RunFiles
from distprof.launcher.remote.upload import Upload
from distprof.launcher.run_setup import Job, RunOptions, environment, prepare
from distprof.launcher.store.rendezvous import Rendezvous
from distprof.run_folder import RunFolder

#: ``python -m`` would put the current folder first on the path, so that a user's numpy.py would hide numpy.
_MERGE = "import sys; sys.path = [p for p in sys.path if p]; from distprof.__main__ import main; main()"


def record_job(
    options: RunOptions,
    job: Job,
    start: Callable[[Mapping[str, str]], int],
    rendezvous: Rendezvous | None = None,
) -> int:
    """Runs ``start`` with the variables that make its ranks record.  Returns and raises the same as ``start``.

    ``rendezvous`` is that of a job of several nodes, which ``start`` runs in this process.
    """
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
    link = _linked(run, options, job, rendezvous)
    relay = None if link is None else link.daemon_end.fileno()
    daemon = start_daemon(run, relay) if options.daemon and job.on_this_node else None
    if link is not None:
        link.start()
    upload = _started_upload(run, options, job, link)
    try:
        return start(environment(run, os.environ))
    finally:
        gathered = Gathered() if link is None else link.finish()
        if daemon is not None:
            daemon.end()
        try:
            _close(run, options, job, gathered)
        except Exception as error:  # the job has ended, and its outcome must not change
            say(f"cannot say what was recorded in {run.path}: {error!r}")
        if upload is not None:
            _finish(upload, job, copies=not gathered.sent_to)
        if daemon is not None:
            daemon.close()


def _linked(run: RunFolder, options: RunOptions, job: Job, rendezvous: Rendezvous | None) -> NodeLink | None:
    """Returns the link to the other nodes of the job; None without one."""
    if rendezvous is None:
        return None
    try:
        return NodeLink(run, job.host, rendezvous, merges=options.merge)
    except OSError as error:
        say(f"this node goes on without the others, its shards stay here: {said(error)}")
        return None


def _started_upload(run: RunFolder, options: RunOptions, job: Job, link: NodeLink | None) -> Upload | None:
    """Returns what copies the run folder to the URL that the user gave as ``--out``; None without one.

    Each of several launchers copies what its own ranks have written, and the first node what it got from others, too.
    """
    if not options.url:
        return None
    recording, files = RecordingNow(run), RunFiles(run)

    def is_whole() -> bool:
        return job.shared_name is None or (link is not None and link.is_first)

    try:
        upload = Upload(
            run,
            options.url,
            lambda: recording() or (link is not None and not link.is_first),
            lambda: files.all() if is_whole() else files.own(),
        )
        upload.start()
        return upload
    except Exception as error:
        say(f"the run folder stays here, in {run.path}: {said(error)}")
        return None


def _finish(upload: Upload, job: Job, *, copies: bool) -> None:
    """Copies all that has not been copied yet."""
    try:
        upload.stop()
        if copies:
            upload.sync()
            if job.speaks:
                say(_copied(upload, job))
    except (KeyboardInterrupt, Exception) as error:
        say(f"not all of it is copied to {upload.url}: {said(error)}  ->  {upload.command}")


def _copied(upload: Upload, job: Job) -> str:
    if job.shared_name is None or job.on_this_node:
        return f"all of it is copied to {upload.url}"
    return f"each task copies what its ranks wrote to {upload.url}  ->  distprof merge {shlex.quote(upload.url)}"


def _close(run: RunFolder, options: RunOptions, job: Job, gathered: Gathered) -> None:
    """Says what was recorded, and merges it if that is asked for."""
    if gathered.received:
        job = replace(job, host="")  # the ranks of all nodes are here
    outcomes, unread = read_rank_summaries(run, job.host)
    # The node with rank 0 merges, unless its shards have gone to another one.
    has_first = any(outcome.header.rank == 0 or not job.host for outcome in outcomes)
    merging = options.merge and job.speaks and has_first and not gathered.sent_to
    if job.speaks:
        said_next = merging or bool(gathered.sent_to)
        say(last_line(run, job, outcomes, unread, merging=said_next) + _where(gathered))
    if merging:
        _merge(run, options)


def _where(gathered: Gathered) -> str:
    """Returns where the shards of the other nodes are, or those of this one, as the end of the last line."""
    if gathered.sent_to:
        return f", and sent to {gathered.sent_to}, where all are merged"
    if gathered.missing:
        return f" (not all shards have come from {', '.join(gathered.missing)})"
    return f" (its shards are here only: {gathered.trouble})" if gathered.trouble else ""


def _merge(run: RunFolder, options: RunOptions) -> None:
    path = str(run.path)
    config = ["--config", str(options.config)] if options.config else []
    unread = unknown_variables(os.environ)  # the user knows of them by now
    variables = {name: value for name, value in os.environ.items() if name not in unread}
    with children_waited_for():
        ended = subprocess.run([sys.executable, "-c", _MERGE, "merge", path, *config], check=False, env=variables)
    if ended.returncode:
        say(f"merging ended with exit code {ended.returncode}; the shards are safe: distprof merge {shlex.quote(path)}")
