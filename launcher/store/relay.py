"""Passes calls of the daemon on to the store: the launcher is connected to it, and has imported torch already.

Both ends are a pair of sockets that keep the borders of messages.  A call is the msgpack list ``[number, method, key,
value]``, and its answer ``[number, whether it succeeded, result]``.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import msgpack

from distprof.errors import said
from distprof.launcher.store.key_values import KeyValues, StoreLost

#: The largest message; no value of a daemon is as long.
MAX_BYTES = 1 << 17
_PATIENCE_S = 5.0
_METHODS = ("set", "peek", "add", "delete")


def relay_pair() -> tuple[socket.socket, socket.socket]:
    """Returns (the end of the launcher, the end of the daemon)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class RelayedStore:
    """The daemon's end: a store whose calls another process makes.  All methods raise OSError where that fails."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.settimeout(_PATIENCE_S)
        self._number = 0

    def set(self, key: str, value: bytes) -> None:
        self._call("set", key, value)

    def peek(self, key: str) -> bytes | None:
        value = self._call("peek", key, None)
        return value if isinstance(value, bytes) else None

    def add(self, key: str, amount: int) -> int:
        return int(self._call("add", key, amount))

    def delete(self, key: str) -> None:
        self._call("delete", key, None)

    def _call(self, method: str, key: str, value: bytes | int | None) -> Any:
        self._number += 1
        self._link.send(msgpack.packb([self._number, method, key, value]))
        while True:  # an answer that came too late for an earlier call is passed over
            message = self._link.recv(MAX_BYTES)
            if not message:
                raise StoreLost("the launcher has gone")
            number, succeeded, result = msgpack.unpackb(message)
            if number == self._number:
                break
        if not succeeded:
            raise StoreLost(str(result))
        return result


class Relay:
    """The launcher's end."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.setblocking(False)

    def fileno(self) -> int:
        return self._link.fileno()

    def answer(self, store: KeyValues | None) -> bool:
        """Answers a call if there is one; without a store the answer is that there is none.

        Returns False once the daemon has gone.
        """
        try:
            message = self._link.recv(MAX_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not message:
            return False
        with contextlib.suppress(OSError):  # the daemon may have gone meanwhile, or not listen
            self._link.send(msgpack.packb(_answer(message, store)))
        return True

    def close(self) -> None:
        self._link.close()


def _answer(message: bytes, store: KeyValues | None) -> list[Any]:
    number = 0
    try:
        number, method, key, value = msgpack.unpackb(message)
        if method not in _METHODS:
            raise StoreLost("no such method")
        if store is None:
            raise StoreLost("there is no store")
        result = getattr(store, method)(key) if value is None else getattr(store, method)(key, value)
    except Exception as error:
        return [number, False, said(error)]
    if isinstance(result, bytes) and len(result) > MAX_BYTES // 2:
        return [number, False, "the value is too long"]
    return [number, True, result]
