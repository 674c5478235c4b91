"""Tests that pages of killed daemons are removed, and no others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distprof.heartbeat import page_folder
from distprof.heartbeat.leftovers import remove_leftovers
from distprof.heartbeat.look import open_pipe, write_answer
from distprof.heartbeat.page import create_page

#: Takes a slot of the page of a token, says so, and ends with stdin.
_RANK = """
import sys
from pathlib import Path
from distprof.heartbeat import page_folder
page_folder.bases = lambda: [Path(sys.argv[1])]
from distprof.heartbeat.page import open_page
page = open_page(sys.argv[2])
print(page.claim(3), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(page_folder, "bases", lambda: [tmp_path])
    return tmp_path


def make(base: Path, age_s: float = 3600) -> Path:
    folder = base / f"distprof-{create_page()}"
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def test_a_page_without_daemon_and_ranks_is_removed(base: Path) -> None:
    old, young = make(base), make(base, 5)
    with socket.socket(socket.AF_UNIX) as ended:
        (old_socket := old / "socket").parent.stat()
        ended.bind(str(old_socket))
    os.close(open_pipe(old.name.removeprefix("distprof-"), 7))  # of a rank, with its answer
    write_answer(old.name.removeprefix("distprof-"), 7, b"x")
    os.utime(old, (0, 0))
    remove_leftovers()
    assert (old.exists(), young.exists()) == (False, True)


def test_the_page_of_a_daemon_stays(base: Path) -> None:
    folder = make(base)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(folder / "socket"))
        daemon.listen()
        os.utime(folder, (0, 0))
        remove_leftovers()
        assert folder.exists()


def test_the_page_of_a_rank_stays_until_it_ends(base: Path) -> None:
    folder = make(base)
    token = folder.name.removeprefix("distprof-")
    rank = subprocess.Popen(
        [sys.executable, "-c", _RANK, str(base), token], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert rank.stdout is not None
    assert rank.stdout.readline() == "3\n"
    remove_leftovers()
    assert folder.exists()
    rank.communicate()
    remove_leftovers()
    assert not folder.exists()


def test_other_folders_with_such_a_name_stay(base: Path) -> None:
    holds_a_run, open_to_all, no_page = base / "distprof-abcdefgh", make(base), base / "distprof-12345678"
    (holds_a_run / "x").mkdir(parents=True, mode=0o700)
    (holds_a_run / "page").touch()
    no_page.mkdir(mode=0o700)
    for folder in (holds_a_run, no_page):
        folder.chmod(0o700)
        os.utime(folder, (0, 0))
    open_to_all.chmod(0o755)
    remove_leftovers()
    assert holds_a_run.exists() and open_to_all.exists() and no_page.exists()
