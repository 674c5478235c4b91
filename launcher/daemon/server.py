"""The daemon's local socket: answers processes of the same user, and lives on whatever they send."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distprof.heartbeat.page_folder import SOCKET
from distprof.launcher.daemon.messages import (
    LENGTH_BYTES,
    MAX_REQUEST_BYTES,
    BadMessage,
    body_length,
    frame,
    unpack,
)

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_MOST_CLIENTS = 32
_PATIENCE_S = 10.0
_CHUNK = 1 << 16

Handler = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class _Client:
    socket: socket.socket
    until: float
    received: bytearray = field(default_factory=bytearray)
    to_send: bytes = b""


class Server:
    """Listens in a folder that only this user can enter.  :meth:`serve` runs until its time is up."""

    def __init__(self, folder: int, handle: Handler) -> None:
        """``folder`` is a descriptor.  ``handle`` returns the reply to a message; BadMessage and ValueError refuse it.

        Raises OSError.
        """
        self._handle = handle
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._listening = socket.socket(socket.AF_UNIX)
        try:
            before = os.umask(0o177)
            try:
                self._listening.bind(f"/proc/self/fd/{folder}/{SOCKET}")  # the path of the folder may be too long
            finally:
                os.umask(before)
            self._listening.listen()
            self._listening.setblocking(False)
        except BaseException:
            self._listening.close()
            raise
        self._selector.register(self._listening, selectors.EVENT_READ)

    def watch(self, fd: int) -> None:
        """Also ends :meth:`serve` when ``fd`` can be read."""
        self._selector.register(fd, selectors.EVENT_READ, "watched")

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def serve(self, seconds: float) -> bool:
        """Answers for this time.  Returns early, with True, when a watched descriptor can be read."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for key, events in self._selector.select(left):
                if key.data == "watched":
                    return True
                if key.fileobj is self._listening:
                    self._accept()
                elif isinstance(key.data, _Client):
                    self._advance(key.data, events)
            self._drop_slow_clients()
        return False

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.unregister(self._listening)
        self._listening.close()
        self._selector.close()

    def _accept(self) -> None:
        try:
            link, _ = self._listening.accept()
        except OSError:
            return
        if len(self._clients) >= _MOST_CLIENTS or not _is_of_this_user(link):
            link.close()
            return
        link.setblocking(False)
        client = _Client(link, time.monotonic() + _PATIENCE_S)
        self._clients[link.fileno()] = client
        self._selector.register(link, selectors.EVENT_READ, client)

    def _advance(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                received = client.socket.recv(_CHUNK)
                if not received:
                    self._drop(client)
                    return
                client.received += received
            if client.to_send:
                _send(client)
            while not client.to_send and self._answer(client):
                _send(client)
            wanted = selectors.EVENT_WRITE if client.to_send else selectors.EVENT_READ  # a flood is not kept
            self._selector.modify(client.socket, wanted, client)
        except BlockingIOError:
            return
        except (OSError, BadMessage):
            self._drop(client)

    def _answer(self, client: _Client) -> bool:
        """Answers the next message, if it was received whole.  Returns whether it was.  Raises BadMessage."""
        if len(client.received) < LENGTH_BYTES:
            return False
        length = body_length(bytes(client.received[:LENGTH_BYTES]), MAX_REQUEST_BYTES)
        if len(client.received) < LENGTH_BYTES + length:
            return False
        body = bytes(client.received[LENGTH_BYTES : LENGTH_BYTES + length])
        del client.received[: LENGTH_BYTES + length]
        client.until = time.monotonic() + _PATIENCE_S
        message = unpack(body)
        try:
            client.to_send = frame(self._handle(message))
        except ValueError as error:
            client.to_send = frame({"error": str(error)})
        return True

    def _drop_slow_clients(self) -> None:
        now = time.monotonic()
        for client in [client for client in self._clients.values() if client.until < now]:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.socket.fileno(), None) is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(client.socket)
            client.socket.close()


def _send(client: _Client) -> None:
    """Sends what the socket takes now.  Raises OSError."""
    with contextlib.suppress(BlockingIOError):
        client.to_send = client.to_send[client.socket.send(client.to_send) :]


def _is_of_this_user(link: socket.socket) -> bool:
    """Whether the peer is a process of this user, or of root."""
    try:
        _, uid, _ = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return False
    return uid in (os.geteuid(), 0)
