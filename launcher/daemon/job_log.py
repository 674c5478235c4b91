"""Lines of the daemon in the log of its job: the launcher writes them, or a rank where ranks started the daemon."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable

from distprof.heartbeat.look import SPEAK, ask, write_words


class JobLog:
    """Hands lines over; what nobody takes is dropped."""

    def __init__(self, launcher: int | None, token: str, slots: Callable[[], Iterable[int]]) -> None:
        """``launcher`` is the descriptor of a socket to it, if any; ``slots`` returns those of ranks that live."""
        self._launcher = launcher
        self._token = token
        self._slots = slots

    def say(self, sentence: str) -> None:
        """Never waits."""
        line = " ".join(sentence.splitlines())
        if self._launcher is not None:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._launcher)) as link:
                link.sendall(f"{line}\n".encode(), socket.MSG_DONTWAIT)
            return
        with contextlib.suppress(OSError):
            write_words(self._token, line)
            any(ask(self._token, slot, SPEAK, 0) for slot in self._slots())
