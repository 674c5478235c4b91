"""The interface of an exchange: each node publishes its status, and any of them the last request of a user to all.

The values come from elsewhere: they are bounded, and no name in them is used as a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

#: A node's status: some hundred bytes for each rank.
MAX_STATUS_BYTES = 1 << 18
MAX_REQUEST_BYTES = 1 << 16
#: No job has more nodes.
MAX_NODES = 1 << 14


class Exchange(Protocol):
    """Values that all nodes of a job see, after a few seconds.  All methods raise OSError where that fails."""

    def publish_status(self, status: bytes) -> None:
        """Replaces this node's status."""

    def statuses(self) -> Iterator[tuple[str, bytes]]:
        """Yields (node, status) of all other nodes."""

    def publish_request(self, request: bytes) -> None:
        """Replaces the request to all nodes."""

    def request(self) -> bytes | None:
        """Returns the last request; None without one."""
