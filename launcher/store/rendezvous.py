"""The rendezvous of the torchrun that runs in this process: where its store is, and whether this node has it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

_REGISTRY = "torch.distributed.elastic.rendezvous.registry"
_MAKER = "get_rendezvous_handler"
_LISTENS = "0A"


class Rendezvous:
    """Keeps torchrun's rendezvous handler, and with it a store that this process serves, until :meth:`release`."""

    def __init__(self) -> None:
        self._handler: Any = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Takes note of the handler that torchrun makes in this block."""
        registry: Any = import_module(_REGISTRY)
        make = getattr(registry, _MAKER, None)
        if make is None:
            yield
            return

        def make_and_keep(*args: Any, **named: Any) -> Any:
            self._handler = make(*args, **named)
            return self._handler

        setattr(registry, _MAKER, make_and_keep)
        try:
            yield
        finally:
            setattr(registry, _MAKER, make)

    @property
    def has_no_store(self) -> bool:
        """Whether torchrun's rendezvous never has a TCPStore: it is one of etcd, or in a file."""
        return self._handler is not None and (not hasattr(self._handler, "_store") or self._is_other(self._store()))

    def address(self) -> tuple[str, int] | None:
        """Returns host and port of the store; None where there is none, or none yet."""
        store = self._store()
        host, port = getattr(store, "host", None), getattr(store, "port", None)
        return (host, port) if isinstance(host, str) and isinstance(port, int) and port > 0 else None

    def _store(self) -> Any:
        store: Any = getattr(self._handler, "_store", None)
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        return store

    @staticmethod
    def _is_other(store: Any) -> bool:
        return store is not None and not isinstance(getattr(store, "port", None), int)

    def release(self) -> None:
        self._handler = None


def is_served_here(port: int) -> bool:
    """Whether this process listens on a TCP port."""
    own = _own_sockets()
    return any(inode in own for inode in _listening(port))


def _listening(port: int) -> Iterator[str]:
    """Yields the inodes of the sockets of this network that listen on a port."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    yield words[9]


def _own_sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115  no path: socket:[INODE]
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found
