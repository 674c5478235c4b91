"""Messages through the key-value store that a job of torch.distributed has, on connections of their own.

The job's own connection is never used: it is locked while it waits.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

from distprof.clock_sync.ping_pong import Interrupted

#: The store is there, but the look-up of its name may take many seconds; torch writes an error when the time is up.
_CONNECTING = timedelta(seconds=300)
#: A wait that runs out writes a warning of torch's on stderr: one for a host that died in the middle of a round.
_FOR_A_PEER = timedelta(seconds=60)
_FOREVER = timedelta(days=20)  # poll(2) counts milliseconds in 31 bits


def job_store() -> tuple[str, int] | None:
    """Returns host and port of the store of the default process group; None without one that others can connect to."""
    distributed = sys.modules.get("torch.distributed.distributed_c10d")
    find = getattr(distributed, "_get_default_store", None)
    if find is None:
        return None
    try:
        store = find()
    except Exception:  # ValueError without a process group; this function is not part of torch's interface
        return None
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    host, port = getattr(store, "host", None), getattr(store, "port", None)
    return (host, port) if isinstance(host, str) and isinstance(port, int) else None


def connect(host: str, port: int) -> Any:
    """Returns a new connection to the store.  Raises RuntimeError if it cannot be reached."""
    distributed: Any = import_module("torch.distributed")
    return distributed.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_CONNECTING)


class StoreChannel:
    """Keys below ``prefix``.  One thread uses it; any thread may interrupt it."""

    def __init__(self, connect_store: Callable[[], Any], prefix: str) -> None:
        self._prefix = prefix
        self._store = connect_store()
        self._waker = connect_store()  # the other connection is locked while it waits
        self._waited_for = ""
        self._interrupted = False

    def add(self, key: str) -> int:
        return int(self._store.add(self._prefix + key, 1))

    def set(self, key: str, value: bytes) -> None:
        self._store.set(self._prefix + key, value)

    def get(self, key: str) -> bytes:
        return bytes(self._store.get(self._prefix + key))

    def delete(self, key: str) -> bool:
        return bool(self._store.delete_key(self._prefix + key))

    def wait(self, key: str, *, peer: bool = False) -> None:
        """As :class:`~distprof.clock_sync.ping_pong.Channel` says.  Raises Interrupted."""
        self._waited_for = self._prefix + key  # before the flag is read: interrupt() sets them in the other order
        if not self._interrupted:
            self._store.wait([self._waited_for], _FOR_A_PEER if peer else _FOREVER)
        if self._interrupted:
            raise Interrupted

    def interrupt(self) -> None:
        """Ends the present wait, and each later one, by writing the key that it waits for."""
        self._interrupted = True
        key = self._waited_for
        if key:
            with contextlib.suppress(RuntimeError):  # the store may be gone
                self._waker.set(key, b"")
