"""Starts the daemon of a node, which is no child of a rank, holds no stream of the job, and waits for nobody."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread

from distprof.heartbeat.page_folder import remove_folder
from distprof.run_folder import RunFolder

_MAIN = "from distprof.launcher.daemon.main import main; main()"
_STREAMS = (0, 1, 2)
#: The longest wait for the end of a daemon: ranks may outlive their launcher, and the daemon watches them.
_ENDS_S = 2.0
#: Variables that make a Python process a rank, or record it.
_OF_RANKS = ("DISTPROF_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONPROFILE")


class StartedDaemon:
    """The daemon that a launcher has started, and the pair of sockets between them.

    The daemon ends when the launcher has closed its own end, or has ended.  What the daemon writes are lines for the
    job's log.
    """

    def __init__(self, token: str) -> None:
        self._own_end, self._daemon_end = socket.socketpair()
        self._token = token
        self._passing: Thread | None = None  # ends with the daemon

    @property
    def daemon_end(self) -> int:
        """The descriptor of the end that the daemon inherits."""
        return self._daemon_end.fileno()

    def close_daemon_end(self) -> None:
        """Leaves the daemon's end to the daemon alone."""
        self._daemon_end.close()

    def pass_on(self, say: Callable[[str], None]) -> None:
        """Says what the daemon says, on a thread that ends with the daemon.  Raises RuntimeError without threads."""
        passing = Thread(target=_pass_on, args=(self._own_end.dup(), say), name="distprof-daemon", daemon=True)
        passing.start()
        self._passing = passing

    def end(self) -> None:
        """Lets the daemon end once no rank runs any more."""
        with contextlib.suppress(OSError):
            self._own_end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends the daemon, and waits a moment for its last writes: who removes the run folder next removes all of it.
        Removes the page: the daemon may have been killed.
        """
        self.end()
        if self._passing is not None:
            with contextlib.suppress(KeyboardInterrupt):
                self._passing.join(_ENDS_S)
        self._own_end.close()
        remove_folder(self._token)


def _pass_on(link: socket.socket, say: Callable[[str], None]) -> None:
    with link, link.makefile("r", encoding="utf-8", errors="replace") as lines, contextlib.suppress(OSError):
        for line in lines:
            say(line.rstrip("\n"))


def start_from_launcher(
    run: RunFolder, launch: str, token: str, path: Sequence[str], relay: int | None = None
) -> StartedDaemon:
    """Starts the daemon of a launcher's node.  ``token`` is that of the page; ``relay`` is
    the daemon's end of a pair of sockets.

    Raises OSError.
    """
    daemon = StartedDaemon(token)
    try:
        _start(run, launch, run.inject, path, daemon.daemon_end, relay)
    except BaseException:
        daemon.close()
        raise
    finally:
        daemon.close_daemon_end()
    return daemon


def start_from_rank(run: RunFolder, launch: str, settings: Path, path: Sequence[str]) -> None:
    """Starts the daemon of a rank's node: it ends when no rank of its page is alive.  Raises OSError.

    ``settings`` is the folder of the run's settings.
    """
    _start(run, launch, settings, path)


def _start(run: RunFolder, launch: str, settings: Path, path: Sequence[str], *given: int | None) -> None:
    """Starts the daemon as the child of a process that ends at once, so that nobody has to wait for its end.

    ``given``: the descriptors of the sockets to the launcher and of the relay, which it inherits.
    """
    kept = [fd for fd in given if fd is not None and fd not in _STREAMS]
    numbers = [fd if fd in kept else -1 for fd in (*given, None, None)[:2]]
    values = (run.path.absolute(), launch, os.getpid(), *numbers, settings.absolute())
    words = [sys.executable, "-c", _MAIN, *map(str, values)]
    environment = daemon_environment(os.environ, path)
    starter = os.fork()
    if not starter:
        _become_starter(words, environment, kept)
    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: nobody has to wait
        os.waitpid(starter, 0)


def _become_starter(words: Sequence[str], environment: Mapping[str, str], kept: Sequence[int]) -> None:
    """Runs in the fork: nothing of the parent's Python may run any more, so it ends whatever happens."""
    try:
        os.setsid()
        if os.fork():
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in _STREAMS:
            os.dup2(nothing, stream)
        for number in _open_files():
            if number not in (*_STREAMS, *kept):
                with contextlib.suppress(OSError):
                    os.close(number)
        for fd in kept:
            os.set_inheritable(fd, True)
        os.chdir("/")
        os.execve(words[0], list(words), environment)
    finally:
        os._exit(0)


def _open_files() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208  no objects are made here
    except OSError:
        return list(range(3, 256))


def daemon_environment(inherited: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """Returns the environment of a daemon: that of its starter, in which Python finds what is on ``path`` and records
    nothing.
    """
    found = {name: value for name, value in inherited.items() if not name.startswith(_OF_RANKS)}
    entries = [str(Path(entry).absolute()) for entry in path if entry]
    return {**found, "PYTHONPATH": os.pathsep.join(entries), "PYTHONSAFEPATH": "1"}
