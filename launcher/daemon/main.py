"""The process of the daemon: watches one node until its job has ended.  It signals no rank, and imports no torch.

    python -c '... main()' RUN LAUNCH PID LIFELINE RELAY SETTINGS

PID is the process that started it; LIFELINE is the reading end of a pipe that the launcher closes, or -1; RELAY is the
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
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distprof.config.settings import Settings, read_settings
from distprof.heartbeat.node_files import node_file
from distprof.heartbeat.page import open_page
from distprof.heartbeat.page_folder import page_folder, remove_folder
from distprof.launcher.daemon.exchange import Exchange, FolderExchange
from distprof.launcher.daemon.hang_watch.watch import HangWatch, Neighbour
from distprof.launcher.daemon.isolation import IsolationNotice
from distprof.launcher.daemon.job_end import JobEnd
from distprof.launcher.daemon.job_log import JobLog
from distprof.launcher.daemon.job_view import SILENT_S
from distprof.launcher.daemon.joined_exchange import JoinedExchange
from distprof.launcher.daemon.messages import BadMessage, pack, unpack
from distprof.launcher.daemon.metrics.start import start_metrics
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.launcher.daemon.requests import window_request
from distprof.launcher.daemon.server import Server
from distprof.launcher.daemon.slow_rank.watch import SlowRankWatch, pause_s
from distprof.launcher.daemon.status import NodeStatus, from_message, to_message
from distprof.launcher.daemon.store_exchange import StoreExchange
from distprof.launcher.store.relay import RelayedStore
from distprof.run_folder import RunFolder

#: Time between two exchanges with other nodes.
_EXCHANGE_S = 2.0
_NICE = 10
_NS = 1e9


class Daemon:
    """Answers the local socket, and exchanges status and requests with other nodes."""

    def __init__(self, watch: NodeWatch, exchange: Exchange, hangs: HangWatch, slow_rank: SlowRankWatch) -> None:
        self._watch = watch
        self._hangs = hangs
        self._slow_rank = slow_rank
        self._exchange = exchange
        self._others: list[NodeStatus] | None = None  # None: to be read when somebody asks
        self._neighbours: list[Neighbour] = []

    def handle(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the reply to a message.  Raises ValueError for one that is refused."""
        if message.get("op") == "status":
            return {"nodes": [to_message(status) for status in (self.status(), *self.others())]}
        if message.get("op") == "window":
            request = window_request(message)
            with contextlib.suppress(OSError):  # then it is for this node only
                self._exchange.publish_request(pack(request.message()))
            self._watch.lay(request)
            return {"laid": request.number}
        raise ValueError("unknown op")

    def status(self) -> NodeStatus:
        """Returns the status of this node, with what its watches know."""
        status, slowest = self._watch.status(self._slow_rank.looks()), self._slow_rank.slowest
        return replace(status, evidence=self._hangs.evidence, hang=self._hangs.hang, slowest=slowest)

    def look(self) -> None:
        """Looks for hangs and for a slow rank; called some times a second."""
        self._hangs.step(self._neighbours)
        self._slow_rank.step()

    def exchange(self) -> NodeStatus:
        """Publishes the status of this node and returns it.  Reads what the node has to know of the others: their last
        request, and whether they suspect a hang.
        """
        self._others = None
        status = self.status()
        with contextlib.suppress(OSError):
            self._exchange.publish_status(pack(to_message(status)))
        with contextlib.suppress(OSError, BadMessage, ValueError):
            request = self._exchange.request()
            if request is not None:
                self._watch.lay(window_request(unpack(request)))
        self._neighbours = self._heard(min((rank.rank for rank in status.ranks), default=-1))
        return status

    def others(self) -> list[NodeStatus]:
        """Returns the status of the other nodes.

        They are read at most once between two exchanges, and only if somebody asks: a job may have 1,000 nodes.
        """
        if self._others is None:
            self._others = list(self._statuses())
        return self._others

    def _heard(self, lowest: int) -> list[Neighbour]:
        """Returns the neighbours that the hang watch needs: all of them on the node with the lowest rank, which judges,
        and elsewhere one with a lower rank than ``lowest``.  So suspicion goes from node to node at a small cost.
        """
        found: list[Neighbour] = []
        for other in self._statuses() if lowest >= 0 else ():
            if other.ranks and time.time_ns() - other.wall_ns < SILENT_S * _NS:
                found.append(Neighbour(tuple(rank.rank for rank in other.ranks), other.evidence))
                if min(found[-1].ranks) < lowest:
                    return found
        return found

    def _statuses(self) -> Iterator[NodeStatus]:
        """Yields the status of each other node that is on the exchange."""
        with contextlib.suppress(OSError):
            for _, content in self._exchange.statuses():
                with contextlib.suppress(BadMessage, ValueError):
                    status = from_message(unpack(content))
                    if status.node != self._watch.node:
                        yield status


def _exchange(run: RunFolder, key: str, relay: int | None) -> Exchange:
    """Returns the ways to the other nodes: the store of the rendezvous, and the run folder, which they may share."""
    folder = FolderExchange(run, key)
    if relay is None:
        return folder
    return JoinedExchange(StoreExchange(RelayedStore(socket.socket(fileno=relay))), folder)


def watch_node(run: RunFolder, settings: Settings, starter: int, lifeline: int | None, relay: int | None) -> None:
    """Watches this node until its job has ended.  Raises OSError if it has no page."""
    node = node_file(run, settings.page_id)
    if node is None:
        return
    page = open_page(node.token)
    watch = NodeWatch(page, node.node, settings.stall)
    say = JobLog(lifeline, node.token, watch.answering).say
    hangs = HangWatch(run, node.token, watch.slots, settings.stall, say)
    slow_rank = SlowRankWatch(page, node.token, watch.slots, _silence if settings.quiet else say)
    daemon = Daemon(watch, _exchange(run, node.key, relay), hangs, slow_rank)
    end = JobEnd(watch, starter, lifeline)
    isolation = IsolationNotice(os.environ if relay is None else {}, say)
    metrics = start_metrics(settings, run, node.key, watch.ranks, slow_rank.looks)
    try:
        with page_folder(node.token) as (_, folder):
            server = Server(folder, daemon.handle)
        if lifeline is not None:
            server.watch(lifeline)
        exchanged = -_EXCHANGE_S
        while not end.has_come():
            if time.monotonic() - exchanged >= _EXCHANGE_S:
                exchanged = time.monotonic()
                isolation.look(daemon.exchange(), daemon.others)
            daemon.look()
            metrics.refresh()
            if server.serve(pause_s()) and lifeline is not None:
                server.unwatch(lifeline)  # it stays readable: ranks may outlive their launcher
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
    starter, lifeline, relay = map(int, numbers)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    settings = read_settings(Path(folder))
    watch_node(RunFolder(Path(run)), settings, starter, _descriptor(lifeline), _descriptor(relay))


def _descriptor(number: int) -> int | None:
    return number if number >= 0 else None
