"""The process of the daemon: watches one node until its job has ended.  It signals no rank, and imports no torch.

    python -c '... main()' RUN LAUNCH PID LAUNCHER RELAY SETTINGS

PID is the process that started it; LAUNCHER is a socket whose other end the launcher has, or -1; RELAY is the
socket through which the launcher passes calls on to the store of the job's rendezvous, or -1; SETTINGS is the folder of
the run's settings.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

from distprof.config.settings import Settings, read_settings
from distprof.heartbeat.node_files import node_file
from distprof.heartbeat.page import open_page
from distprof.heartbeat.page_folder import page_folder, remove_folder
from distprof.launcher.daemon.exchange.folder import FolderExchange
from distprof.launcher.daemon.exchange.joined import JoinedExchange
from distprof.launcher.daemon.exchange.protocol import Exchange
from distprof.launcher.daemon.exchange.store import StoreExchange
from distprof.launcher.daemon.hang_watch.watch import HangWatch
from distprof.launcher.daemon.isolation import IsolationNotice
from distprof.launcher.daemon.job_end import JobEnd
from distprof.launcher.daemon.job_log import JobLog
from distprof.launcher.daemon.metrics.start import start_metrics
from distprof.launcher.daemon.node_daemon import NodeDaemon
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.launcher.daemon.server import Server
from distprof.launcher.daemon.slow_rank.watch import SlowRankWatch, pause_s
from distprof.launcher.store.relay import RelayedStore
from distprof.run_folder import RunFolder

#: Time between two exchanges with other nodes.
_EXCHANGE_S = 2.0
_NICE = 10


def _exchange(run: RunFolder, key: str, relay: int | None) -> Exchange:
    """Returns the ways to the other nodes: the store of the rendezvous, and the run folder, which they may share."""
    folder = FolderExchange(run, key)
    if relay is None:
        return folder
    return JoinedExchange(StoreExchange(RelayedStore(socket.socket(fileno=relay))), folder)


def watch_node(run: RunFolder, settings: Settings, starter: int, launcher: int | None, relay: int | None) -> None:
    """Watches this node until its job has ended.  Raises OSError if it has no page."""
    node = node_file(run, settings.page_id)
    if node is None:
        return
    page = open_page(node.token)
    watch = NodeWatch(page, node.node, settings.stall)
    say = JobLog(launcher, node.token, watch.answering).say
    hangs = HangWatch(run, node.token, watch.slots, settings.stall, say)
    slow_rank = SlowRankWatch(page, node.token, watch.slots, _silence if settings.quiet else say)
    daemon = NodeDaemon(watch, _exchange(run, node.key, relay), hangs, slow_rank)
    end = JobEnd(watch, starter, launcher)
    isolation = IsolationNotice(os.environ if relay is None else {}, say)
    metrics = start_metrics(settings, run, node.key, watch.ranks, slow_rank.looks)
    try:
        with page_folder(node.token) as (_, folder):
            server = Server(folder, daemon.handle)
        if launcher is not None:
            server.watch(launcher)
        exchanged = -_EXCHANGE_S
        while not end.has_come():
            if time.monotonic() - exchanged >= _EXCHANGE_S:
                exchanged = time.monotonic()
                isolation.look(daemon.exchange(), daemon.others)
            daemon.look()
            metrics.refresh()
            if server.serve(pause_s()) and launcher is not None:
                server.unwatch(launcher)  # it stays readable: ranks may outlive their launcher
                end.look_at_once()
        daemon.exchange()
        server.close()
    finally:
        hangs.close()
        metrics.close()
        remove_folder(node.token)


def _silence(sentence: str) -> None:
    """Takes the place of what writes into the job's log."""


def main() -> None:
    """Runs the daemon; nobody reads what it would print."""
    run, _, *numbers, folder = sys.argv[1:]  # the launch is there for those who look for the process
    starter, launcher, relay = map(int, numbers)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    settings = read_settings(Path(folder))
    watch_node(RunFolder(Path(run)), settings, starter, _descriptor(launcher), _descriptor(relay))


def _descriptor(number: int) -> int | None:
    return number if number >= 0 else None
