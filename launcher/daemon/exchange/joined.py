"""Several ways to the other nodes as one: all are written, and all requests are read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from distprof.launcher.daemon.exchange.protocol import Exchange


class JoinedExchange:
    """Several :class:`~distprof.launcher.daemon.exchange.protocol.Exchange` with the interface of one, the best first.

    One that fails is passed over.
    """

    def __init__(self, *exchanges: Exchange) -> None:
        self._exchanges = exchanges
        self._seen: dict[int, bytes] = {}

    def publish_status(self, status: bytes) -> None:
        for exchange in self._exchanges:
            with contextlib.suppress(OSError):
                exchange.publish_status(status)

    def statuses(self) -> Iterator[tuple[str, bytes]]:
        """Yields those of the first exchange on which there are any."""
        for exchange in self._exchanges:
            count = 0
            with contextlib.suppress(OSError):
                for found in exchange.statuses():
                    count += 1
                    yield found
            if count:
                return

    def publish_request(self, request: bytes) -> None:
        for exchange in self._exchanges:
            with contextlib.suppress(OSError):
                exchange.publish_request(request)

    def request(self) -> bytes | None:
        """Returns a request that is new on its exchange; None without one."""
        for number, exchange in enumerate(self._exchanges):
            with contextlib.suppress(OSError):
                found = exchange.request()
                if found is not None and found != self._seen.get(number):
                    self._seen[number] = found
                    return found
        return None
