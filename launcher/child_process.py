"""Runs a command in place of this process: passes signals on to it, and ends as it ended."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from distprof.errors import UsageError

_FORWARDED = frozenset(
    (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
)  # signals that schedulers and users send
_WATCHED = _FORWARDED | {signal.SIGCHLD}
_SENT_BY_A_PROCESS = (0, -6)  # si_code SI_USER, SI_TKILL


class CannotStart(UsageError):
    """The command does not exist (exit code 127, as in a shell), or is no program (126)."""

    def __init__(self, command: str, why: str, exit_code: int) -> None:
        super().__init__(f"cannot start {command}: {why}")
        self.exit_code = exit_code


def check_command(command: str) -> None:
    """Raises CannotStart for a command that does not exist or is not executable."""
    if shutil.which(command) is None:
        there = os.sep in command and Path(command).exists()
        raise CannotStart(command, "it is not executable" if there else "no such command", 126 if there else 127)


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs ``command``.  Returns its exit code, or minus the signal that ended it.  Raises CannotStart."""
    # Blocked from before the start until after the end, so that no signal is lost or interrupts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        with children_waited_for() as ignored:
            spawn = _spawn_ignoring_children if ignored else _spawn
            return _wait(spawn(command, environment, before))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def children_waited_for() -> Iterator[bool]:
    """Stops ignoring SIGCHLD in this block: otherwise nothing would report the end of a child.

    Yields whether this process was started to ignore it (by a daemon, or a container's init).
    """
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield ignored
    finally:
        if ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _spawn_ignoring_children(
    command: Sequence[str], environment: Mapping[str, str], mask: set[int | signal.Signals]
) -> int:
    """Starts the command with SIGCHLD ignored, as it was; posix_spawn can reset signals but not ignore them."""

    def as_started() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        child = subprocess.Popen(command, env=environment, close_fds=False, preexec_fn=as_started)  # noqa: PLW1509
    except OSError as error:
        raise CannotStart(command[0], str(error.strerror), 126) from None
    child.returncode = 0  # its end is awaited by its pid
    return child.pid


def _spawn(command: Sequence[str], environment: Mapping[str, str], mask: set[int | signal.Signals]) -> int:
    try:
        return os.posix_spawnp(
            command[0], list(command), environment, setsigmask=mask, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
        )  # the two signals that Python ignores
    except OSError as error:
        raise CannotStart(command[0], str(error.strerror), 126) from None


def _wait(pid: int) -> int:
    while True:
        caught = signal.sigwaitinfo(_WATCHED)
        # Ctrl-C in a terminal goes to the whole foreground group, so the child has it already.
        if caught.si_signo in _FORWARDED and caught.si_code in _SENT_BY_A_PROCESS:
            with suppress(PermissionError):  # a setuid child
                os.kill(pid, caught.si_signo)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def end_like(code: int) -> int:
    """Returns the exit code; if a signal ended the command, ends this process by the same signal instead."""
    if code >= 0:
        return code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    return 128 - code
