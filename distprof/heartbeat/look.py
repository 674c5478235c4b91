"""How a daemon asks a rank to look at itself: a pipe beside the page wakes a thread of the rank.  It answers in a file.

The thread waits in the kernel, without Python's lock, so it costs nothing until it is asked.  No signal is used: a
signal would cut a sleep of the script short.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from distprof.heartbeat.page_folder import page_folder
from distprof.safe_files import read_regular

_PIPE, _ANSWER, _WORDS = "ask.{}", "look.{}", "words"
_MODE = 0o600
_FIRST_FREE = 3
_WRITING = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_BYTES = 1 << 20
#: What a daemon writes into the pipe: one byte for the kind, a number of eight bytes.
MESSAGE_BYTES = 9
PERMIT, LOOK, SPEAK, GROUPS = b"p", b"l", b"s", b"g"


def open_pipe(token: str, slot: int) -> int:
    """Makes the pipe of a slot, and returns a descriptor from which its rank reads.  Raises OSError."""
    with page_folder(token) as (_, folder):
        name = _PIPE.format(slot)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)  # of an earlier rank in this slot
        os.mkfifo(name, _MODE, dir_fd=folder)
        # Opened for writing too: a read then never sees an end, and opening does not wait.
        first = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            return fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
        finally:
            os.close(first)


def ask(token: str, slot: int, kind: bytes, number: int) -> bool:
    """Wakes the thread of a rank.  Returns whether there is a pipe that takes the message."""
    pipes = Pipes(token)
    try:
        return bool(pipes.ask_each((slot,), kind, number))
    finally:
        pipes.close()


class Pipes:
    """The pipes of ranks that are asked again and again: they stay open."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._open: dict[int, int] = {}  # slot -> descriptor

    def ask_each(self, slots: Sequence[int], kind: bytes, number: int) -> list[int]:
        """Wakes the threads of ranks in this order.  Returns the slots whose pipes take the message."""
        message = kind + number.to_bytes(8, "little")
        self._open_missing(slots)
        return [slot for slot in slots if slot in self._open and self._takes(slot, message)]

    def close(self) -> None:
        """Closes all; the next question opens them again."""
        for slot in list(self._open):
            os.close(self._open.pop(slot))

    def _open_missing(self, slots: Sequence[int]) -> None:
        missing = [slot for slot in slots if slot not in self._open]
        if missing:
            with contextlib.suppress(OSError), page_folder(self._token) as (_, folder):
                for slot in missing:
                    with contextlib.suppress(OSError):
                        self._open[slot] = os.open(_PIPE.format(slot), _WRITING, dir_fd=folder)

    def _takes(self, slot: int, message: bytes) -> bool:
        try:
            return os.write(self._open[slot], message) == MESSAGE_BYTES
        except BlockingIOError:  # it is full: the rank is stopped
            return False
        except OSError:  # its rank has ended
            os.close(self._open.pop(slot))
            return False


def read_question(pipe: int) -> tuple[bytes, int]:
    """Waits for the next message to this rank: (kind, number).  Raises OSError."""
    message = os.read(pipe, MESSAGE_BYTES)
    return message[:1], int.from_bytes(message[1:], "little")


def write_answer(token: str, slot: int, content: bytes) -> None:
    """Replaces the answer of a rank.  Raises OSError."""
    _write(token, _ANSWER.format(slot), content)


def read_answer(token: str, slot: int) -> bytes | None:
    """Returns what the rank of a slot answered last; None without an answer."""
    return _read(token, _ANSWER.format(slot))


def write_words(token: str, text: str) -> None:
    """Leaves a sentence for a rank to say.  Raises OSError."""
    _write(token, _WORDS, text.encode())


def read_words(token: str) -> str:
    """Returns the sentence that a daemon left; empty without one."""
    return (_read(token, _WORDS) or b"").decode("utf-8", "replace")


def _write(token: str, name: str, content: bytes) -> None:
    with page_folder(token) as (_, folder):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(f"{name}.new", flags, _MODE, dir_fd=folder), "wb") as file:
            file.write(content)
        os.replace(f"{name}.new", name, src_dir_fd=folder, dst_dir_fd=folder)


def _read(token: str, name: str) -> bytes | None:
    try:
        with page_folder(token) as (path, _):
            return read_regular(Path(path) / name, _MOST_BYTES)
    except OSError:
        return None
