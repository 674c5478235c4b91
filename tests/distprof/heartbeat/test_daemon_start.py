"""Tests of the end of a daemon that a launcher started: its last writes come before the launcher goes on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread, Timer

import pytest

from distprof.heartbeat import daemon_start
from distprof.heartbeat.daemon_start import StartedDaemon
from distprof.heartbeat.page import create_page, open_page
from distprof.heartbeat.page_folder import NoPage


class Daemon:
    """Has the daemon's end of the sockets, and ends as the real one does: after its last writes."""

    def __init__(self, started: StartedDaemon, folder: Path) -> None:
        self._link = socket.socket(fileno=os.dup(started.daemon_end))
        self._last = folder / "last"
        self.may_end = Event()
        self.thread = Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        assert self._link.recv(1) == b""
        self.may_end.wait()
        self._link.sendall(b"the last line\n")
        self._last.touch()
        self._link.close()


@pytest.fixture
def started() -> Iterator[StartedDaemon]:
    yield (made := StartedDaemon(create_page()))
    made.close()


def test_the_last_writes_of_the_daemon_come_before_the_launcher_goes_on(started: StartedDaemon, tmp_path: Path) -> None:
    said: list[str] = []
    daemon = Daemon(started, tmp_path)
    started.close_daemon_end()
    started.pass_on(said.append)
    started.end()
    Timer(0.2, daemon.may_end.set).start()  # while the launcher waits
    started.close()
    assert (tmp_path / "last").exists() and said == ["the last line"]


def test_a_daemon_that_goes_on_is_not_waited_for(
    started: StartedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks have outlived the launcher, or the daemon is stopped."""
    monkeypatch.setattr(daemon_start, "_ENDS_S", 0.05)
    daemon = Daemon(started, tmp_path)
    started.close_daemon_end()
    started.pass_on(lambda _: None)
    token = started._token
    started.close()
    with pytest.raises(NoPage):
        open_page(token)
    assert not (tmp_path / "last").exists()
    daemon.may_end.set()
    daemon.thread.join()
