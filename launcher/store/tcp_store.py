"""A connection of our own to a TCPStore: that of the agent is locked while the agent waits."""

from __future__ import annotations

import socket
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import Any

from distprof.errors import said
from distprof.launcher.store.key_values import StoreLost

#: The server runs, because torchrun is connected to it.
_PATIENCE = timedelta(seconds=20)
#: No value of ours: what a look at a missing key returns.
_ABSENT = b"?"


class TcpStore:
    """Keys below ``prefix``.  One thread uses it.  Once the connection has failed, every method raises StoreLost.

    torch writes warnings to stderr when a call meets a server that has ended with its job.  So a second connection, on
    which nothing is sent, tells before each call whether the server has ended.
    """

    def __init__(self, host: str, port: int, prefix: str) -> None:
        """Connects.  Raises StoreLost."""
        distributed: Any = import_module("torch.distributed")
        self._prefix = prefix
        self._lost = ""
        try:
            self._store = distributed.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_PATIENCE)
        except Exception as error:
            raise StoreLost(said(error)) from None
        self._watch: socket.socket | None = None
        with suppress(OSError):
            self._watch = socket.create_connection((host, port), _PATIENCE.total_seconds())
            self._watch.setblocking(False)

    def set(self, key: str, value: bytes) -> None:
        self._call("set", key, value)

    def peek(self, key: str) -> bytes | None:
        # A get would wait for the key. This comparison writes nothing: no value of ours is equal to _ABSENT.
        value: bytes = self._call("compare_set", key, _ABSENT, _ABSENT)
        return None if value == _ABSENT else value

    def add(self, key: str, amount: int) -> int:
        number: int = self._call("add", key, amount)
        return number

    def delete(self, key: str) -> None:
        self._call("delete_key", key)

    def _call(self, name: str, key: str, *values: Any) -> Any:
        if not self._lost and self._has_ended():
            self._lost = "the job's store has ended"
        if self._lost:
            raise StoreLost(self._lost)
        try:
            return getattr(self._store, name)(self._prefix + key, *values)
        except Exception as error:  # torch raises errors of several kinds
            self._lost = said(error) or type(error).__name__
            raise StoreLost(self._lost) from None

    def _has_ended(self) -> bool:
        """Whether the server has closed the connection that is only watched."""
        if self._watch is None:
            return False
        try:
            return not self._watch.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
