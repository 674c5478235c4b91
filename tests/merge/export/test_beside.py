"""A content that is made in a process of its own is the one that would be made here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.scripts import wait_for

from distprof.merge.export import beside
from distprof.merge.export.beside import made_beside


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "usable_processors", lambda: 2)
    tests = threading.active_count() - 1  # threads of the test runner
    monkeypatch.setattr(beside, "active_count", lambda: threading.active_count() - tests)


def test_it_is_made_in_another_process() -> None:
    filler = b"x" * 1_000_000  # more than a pipe holds
    process, content = made_beside(lambda: b"%d %b" % (os.getpid(), filler))().split()
    assert content == filler and int(process) != os.getpid()


@pytest.mark.parametrize("status", [1, -9])
def test_it_is_made_here_where_the_process_fails(status: int) -> None:
    here = os.getpid()

    def make() -> bytes:
        if os.getpid() != here:
            if status < 0:
                os.kill(os.getpid(), -status)
            raise OSError("no memory")
        return b"made"

    assert made_beside(make)() == b"made"


def test_an_error_is_raised_where_it_is_asked_for() -> None:
    def fail() -> bytes:
        raise ValueError("not finite")

    wait = made_beside(fail)
    with pytest.raises(ValueError, match="not finite"):
        wait()


def test_the_process_ends_with_one_that_does_not_wait_for_it(tmp_path: Path) -> None:
    """As where drawing the plots fails; its content is more than a pipe holds."""
    script = """
import os, sys, time
from distprof.merge.export import beside

beside.usable_processors = lambda: 2
told = sys.argv[1]

def make():
    with open(told + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(told + ".new", told)
    return b"x" * 1_000_000

beside.made_beside(make)
while not os.path.exists(told):
    time.sleep(0.01)
"""
    told = tmp_path / "process"
    subprocess.run([sys.executable, "-c", script, str(told)], check=True, timeout=60)
    wait_for(lambda: not _runs(told.read_text()), seconds=30)


def _runs(process: str) -> bool:
    state = Path("/proc", process, "stat")
    return state.exists() and ") Z" not in state.read_text()  # nobody may ask for the status of one that has ended


def test_no_process_is_forked_beside_other_threads() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert int(made_beside(lambda: b"%d" % os.getpid())()) == os.getpid()
    finally:
        done.set()
        thread.join()
