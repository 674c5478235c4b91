"""How commands reach the daemons of a run: by the local socket on a node of the job, else by the shared folder."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from distprof.errors import DataError
from distprof.heartbeat.node_files import newest_nodes, node_id
from distprof.heartbeat.page_folder import SOCKET, page_folder
from distprof.launcher.daemon.exchange.folder import FolderExchange
from distprof.launcher.daemon.messages import (
    LENGTH_BYTES,
    MAX_REPLY_BYTES,
    BadMessage,
    body_length,
    frame,
    pack,
    unpack,
)
from distprof.launcher.daemon.requests import WindowRequest, window_request
from distprof.launcher.daemon.status import NodeStatus, from_message
from distprof.run_folder import RunFolder

_PATIENCE_S = 10.0


class DaemonClient:
    """Asks the daemon of this node if there is one; otherwise reads and writes what all daemons of the run exchange."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._exchange = FolderExchange(run)

    def nodes(self) -> list[NodeStatus]:
        """Returns the last known status of every node.  Raises DataError if no daemon has ever run."""
        reply = self._ask({"op": "status"})
        if reply is not None:
            return _valid(reply.get("nodes"))
        found = []
        with contextlib.suppress(OSError):
            for _, content in self._exchange.statuses():
                with contextlib.suppress(BadMessage):
                    found += _valid([unpack(content)])
        if not found:
            raise DataError(f"no daemon has written into {self._run.path}: was the job started with --no-daemon?")
        return found

    def send(self, request: WindowRequest) -> None:
        """Passes a request on to all nodes.  Raises DataError if that is not possible."""
        reply = self._ask({"op": "window", **request.message()})
        if reply is not None and "error" in reply:
            raise DataError(f"the daemon refuses the request: {reply['error']}")
        if reply is None:
            try:
                self._exchange.publish_request(pack(request.message()))
            except OSError as error:
                raise DataError(f"the request cannot be written into {self._run.path}: {error.strerror}") from None

    def last_request(self) -> int:
        """Returns the number of the last request that was written into the run's folder; 0 without one."""
        with contextlib.suppress(OSError, BadMessage, ValueError):
            content = self._exchange.request()
            if content is not None:
                return window_request(unpack(content)).number
        return 0

    def _ask(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the reply of a daemon on this machine; None if there is none."""
        here = node_id()
        for node in newest_nodes(self._run):
            if node.node == here:
                with contextlib.suppress(OSError, BadMessage):
                    return _exchange_messages(node.token, message)
        return None


def _exchange_messages(token: str, message: dict[str, Any]) -> dict[str, Any]:
    """Raises OSError, and BadMessage for a reply that is none."""
    with page_folder(token) as (_, folder), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_PATIENCE_S)
        link.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        link.sendall(frame(message))
        return unpack(_receive(link, body_length(_receive(link, LENGTH_BYTES), MAX_REPLY_BYTES)))


def _receive(link: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = link.recv(min(size - len(received), 1 << 16))
        if not chunk:
            raise ConnectionResetError("the daemon closed the connection")
        received += chunk
    return bytes(received)


def _valid(messages: Any) -> list[NodeStatus]:
    """Returns the statuses in a list of messages; what is none is left out."""
    found = []
    for message in messages if isinstance(messages, list) else ():
        with contextlib.suppress(ValueError, AttributeError):
            found.append(from_message(message))
    return found
