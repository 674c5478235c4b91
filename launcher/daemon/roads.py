"""Several ways to the other nodes as one: all are written, and all requests are read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from distprof.launcher.daemon.exchange import Exchange


class Roads:
    """The interface :class:`~distprof.launcher.daemon.exchange.Exchange` on several roads, the best first.

    A road that fails is passed over.
    """

    def __init__(self, *roads: Exchange) -> None:
        self._roads = roads
        self._seen: dict[int, bytes] = {}

    def publish_status(self, status: bytes) -> None:
        for road in self._roads:
            with contextlib.suppress(OSError):
                road.publish_status(status)

    def statuses(self) -> Iterator[tuple[str, bytes]]:
        """Yields those of the first road on which there are any."""
        for road in self._roads:
            count = 0
            with contextlib.suppress(OSError):
                for found in road.statuses():
                    count += 1
                    yield found
            if count:
                return

    def publish_request(self, request: bytes) -> None:
        for road in self._roads:
            with contextlib.suppress(OSError):
                road.publish_request(request)

    def request(self) -> bytes | None:
        """Returns a request that is new on its road; None without one."""
        for number, road in enumerate(self._roads):
            with contextlib.suppress(OSError):
                found = road.request()
                if found is not None and found != self._seen.get(number):
                    self._seen[number] = found
                    return found
        return None
