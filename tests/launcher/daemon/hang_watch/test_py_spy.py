"""Tests of stacks that py-spy reads from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripts import wait_for

from distprof.heartbeat.rank_look import Frame
from distprof.launcher.daemon.hang_watch.py_spy import Dump, executable, parse

#: Holds Python's lock, so that no thread of its own could tell its stacks.
_HANGS = """
import itertools

def hang():
    print("ready", flush=True)
    sum(itertools.repeat(0))

hang()
"""


def test_a_stopped_process_that_holds_the_lock_is_read_and_stays_stopped() -> None:
    program = executable()
    if program is None:
        pytest.skip("py-spy is not installed")
    with subprocess.Popen([sys.executable, "-c", _HANGS], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            os.kill(process.pid, signal.SIGSTOP)
            wait_for(lambda: _state(process.pid) == "T")
            dump = Dump(program, process.pid)
            wait_for(lambda: dump.is_over)
            (stack,) = dump.end()
            hang, module = ((frame.function, frame.line) for frame in stack.frames)
            assert hang in (("hang", 5), ("hang", 6)) and module == ("<module>", 8)  # it may still return from print
            assert stack.trains and _state(process.pid) == "T"
        finally:
            process.kill()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_its_json() -> None:
    threads = [
        {"thread_name": None, "os_thread_id": 8, "frames": []},
        {"thread_name": "MainThread", "os_thread_id": 7, "frames": [{"name": "f", "filename": "a.py", "line": 3}]},
    ]
    worker, main = parse(json.dumps(threads).encode(), 7)
    assert (main.trains, worker.trains, main.frames) == (True, False, (Frame("f", "a.py", 3),))
    assert parse(b"", 7) == parse(b"[1]", 7) == parse(b"{}", 7) == ()
