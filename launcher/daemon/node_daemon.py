"""What the daemon of a node does: it answers commands, looks for hangs and slow ranks, and tells the other nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from distprof.launcher.daemon.exchange.protocol import Exchange
from distprof.launcher.daemon.hang_watch.watch import HangWatch, Neighbour
from distprof.launcher.daemon.job_view import SILENT_S
from distprof.launcher.daemon.messages import BadMessage, pack, unpack
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.launcher.daemon.requests import window_request
from distprof.launcher.daemon.slow_rank.watch import SlowRankWatch
from distprof.launcher.daemon.status import NodeStatus, from_message, to_message

_NS = 1e9


class NodeDaemon:
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
            self._watch.pass_on(request)
            return {"accepted": request.number}
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
                self._watch.pass_on(window_request(unpack(request)))
        self._neighbours = self._find_neighbours(min((rank.rank for rank in status.ranks), default=-1))
        return status

    def others(self) -> list[NodeStatus]:
        """Returns the status of the other nodes.

        They are read at most once between two exchanges, and only if somebody asks: a job may have 1,000 nodes.
        """
        if self._others is None:
            self._others = list(self._statuses())
        return self._others

    def _find_neighbours(self, lowest: int) -> list[Neighbour]:
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
