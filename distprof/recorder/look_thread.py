"""The thread that answers the daemon: it waits in the kernel until it is asked.

It says how far the collectives of each group are, writes what the rank does into a file beside the page, lets the
daemon read this process's memory, and says what the daemon has found where no launcher can.  It is none of
:mod:`threading`: a script may count those that it knows.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from types import FrameType

from distprof.console import say
from distprof.heartbeat.look import GROUPS, LOOK, PERMIT, SPEAK, open_pipe, read_question, read_words, write_answer
from distprof.heartbeat.rank_look import Frame, OpLook, RankLook, Stack, pack_look
from distprof.probes.collectives.last_ops import group_looks, last_ops
from distprof.probes.collectives.messages import RECEIVE, SEND

#: ``prctl(PR_SET_PTRACER, pid)``: the process that may read this one's memory where Yama restricts that.
_SET_PTRACER = 0x59616D61
_FUTEX = {"x86_64": 202, "aarch64": 98}
_MOST_FRAMES = 100
_MESSAGES = "distributed_c10d.py"
_PEERS = {SEND: "dst", RECEIVE: "src"}


class LookThread:
    """Answers for one rank, whose slot is ``slot`` in the page of ``token``."""

    def __init__(self, token: str, slot: int, evaluates: Callable[[], bool], show_groups: Callable[[], None]) -> None:
        """Called on the thread that trains.  ``evaluates`` returns whether the model is in evaluation mode;
        ``show_groups`` writes into the page how far the collectives of each group are.
        """
        self._token = token
        self._slot = slot
        self._evaluates = evaluates
        self._show_groups = show_groups
        self._thread, self._task = get_ident(), threading.get_native_id()

    def start(self) -> None:
        """Raises OSError without a pipe, and RuntimeError if there are no more threads."""
        pipe = open_pipe(self._token, self._slot)
        try:
            start_new_thread(self._run, (pipe,))
        except RuntimeError:
            os.close(pipe)
            raise

    def _run(self, pipe: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the script's threads
        while True:
            try:
                kind, number = read_question(pipe)
                if kind == GROUPS:
                    self._show_groups()
                elif kind == LOOK:
                    write_answer(self._token, self._slot, pack_look(self.look(number)))
                elif kind == PERMIT:
                    _permit(number)
                elif kind == SPEAK and (words := read_words(self._token)):
                    say(words)
            except OSError:
                return  # the page is gone
            except Exception:  # an answer is missing: the daemon looks from outside
                continue

    def look(self, number: int) -> RankLook:
        """Returns what this process does now."""
        running = sys._current_frames()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        stacks = tuple(
            Stack(names.get(thread, ""), thread == self._thread, tuple(_frames(frame)))
            for thread, frame in sorted(running.items(), key=lambda item: item[0] != self._thread)
            if thread != get_ident()
        )
        message = _message(running.get(self._thread))
        running.clear()
        groups = group_looks()
        return RankLook(
            number,
            stacks,
            groups,
            (*last_ops(groups), *message),
            _waits_in_futex(self._task),
            self._evaluates(),
        )


def _frames(frame: FrameType | None) -> Iterator[Frame]:
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return
        yield Frame(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno or 0)
        frame = frame.f_back


def _message(frame: FrameType | None) -> tuple[OpLook, ...]:
    """Returns the send or receive in which a thread waits: gloo does not write it into torch's flight recorder."""
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return ()
        name = frame.f_code.co_name
        if name in _PEERS and frame.f_code.co_filename.endswith(_MESSAGES):
            given = frame.f_locals
            peer = given.get(_PEERS[name])
            if type(given) is dict:  # a copy, until Python 3.13: it would keep the tensors alive
                given.clear()
            return (OpLook("", -1, name, "", False, peer),) if isinstance(peer, int) else ()
        frame = frame.f_back
    return ()


def _waits_in_futex(task: int) -> bool | None:
    """Returns whether a thread of this process waits for a lock or a condition; None if the system does not tell.

    A wait for a collective of gloo does so; a sleep, and a read from a file or socket, do not.
    """
    number = _FUTEX.get(platform.machine())
    try:
        words = Path(f"/proc/self/task/{task}/syscall").read_text(encoding="ascii").split()
    except OSError:
        return None
    if number is None or not words or not words[0].lstrip("-").isdecimal():  # "running"
        return None
    return int(words[0]) == number


def _permit(pid: int) -> None:
    """Lets the daemon and what it starts read this process's memory.  Without Yama the system knows no such call."""
    ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)
