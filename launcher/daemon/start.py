"""Starts the daemon of the launcher's node, or asks the ranks to do so where they may run on other nodes."""

from __future__ import annotations

import contextlib
import sys

from distprof.config.settings import read_settings
from distprof.console import say
from distprof.errors import said
from distprof.heartbeat.daemon_start import StartedDaemon, start_from_launcher
from distprof.heartbeat.node_files import ensure_page
from distprof.launcher.daemon.metrics.availability import why_not_here
from distprof.run_folder import RunFolder


def start_daemon(run: RunFolder, relay: int | None = None) -> StartedDaemon | None:
    """Makes the page of this node and starts its daemon, which gets the descriptor ``relay``.

    Returns None without one, with a message: the job goes on.
    """
    try:
        settings = read_settings(run.inject)
        why = why_not_here(settings)
        if why:
            say(f"metrics cannot be served yet, which is tried again and again: {why}")
        node, _ = ensure_page(run, settings.page_id)
        daemon = start_from_launcher(run, settings.launch, node.token, sys.path, relay)
        with contextlib.suppress(RuntimeError):  # there may be no more threads
            daemon.pass_on(say)
        return daemon
    except Exception as error:
        say(f"the ranks of this node have no heartbeat, and 'distprof top' shows none of them: {said(error)}")
        return None
