"""Tests of the thread that answers the daemon, in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from distprof.heartbeat.look import (
    GROUPS,
    LOOK,
    PERMIT,
    SPEAK,
    Pipes,
    ask,
    open_pipe,
    read_answer,
    read_question,
    write_words,
)
from distprof.heartbeat.page import create_page
from distprof.heartbeat.page_folder import page_folder, remove_folder
from distprof.heartbeat.rank_look import RankLook, parse_look
from distprof.launcher.daemon.hang_watch.places import place
from distprof.launcher.daemon.job_log import JobLog
from distprof.recorder.look_thread import LookThread


@pytest.fixture
def asked() -> Event:
    """Returns what is set when the daemon asks for the groups."""
    return Event()


@pytest.fixture
def token(asked: Event) -> Iterator[str]:
    made = create_page()
    LookThread(made, 0, lambda: True, asked.set).start()
    yield made
    remove_folder(made)


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end, "it does not become true"
        time.sleep(0.01)
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def look(token: str, number: int) -> RankLook:
    assert ask(token, 0, LOOK, number)

    def answered() -> RankLook | None:
        found = parse_look(content) if (content := read_answer(token, 0)) else None
        return found if found is not None and found.number == number else None

    answer: RankLook = until(answered)
    return answer


def test_a_look(token: str) -> None:
    assert read_answer(token, 0) is None
    assert ask(token, 0, PERMIT, 1)
    answer = look(token, 7)
    (own,) = [stack for stack in answer.stacks if stack.trains]
    functions = [frame.function for frame in own.frames if frame.file == __file__]
    assert functions[-2:] == ["look", "test_a_look"], "it asks, waits, or reads the answer"
    assert place(own.frames).startswith(f"{functions[0]} (test_look.py:")
    assert answer.evaluates and answer.waits_in_futex in (False, None)  # it sleeps, or runs
    assert look(token, 8).number == 8


def test_it_says_what_the_daemon_found(token: str, capfd: pytest.CaptureFixture[str]) -> None:
    JobLog(None, token, lambda: [5, 0]).say("the job\nstands still")
    until(lambda: capfd.readouterr().err == "distprof: the job stands still\n")


def test_it_shows_the_groups_when_it_is_asked(token: str, asked: Event) -> None:
    assert not asked.is_set()
    assert Pipes(token).ask_each((5, 0), GROUPS, 0) == [0]
    assert asked.wait(60)


def test_a_pipe_stays_open_until_its_rank_has_ended(token: str) -> None:
    """The rank of slot 1 ends, and another one takes its slot."""
    pipes, first = Pipes(token), open_pipe(token, 1)
    before = open_files()
    assert [pipes.ask_each((1,), GROUPS, number) for number in (1, 2)] == [[1], [1]]
    assert open_files() == before + 1
    assert [read_question(first) for _ in "ab"] == [(GROUPS, 1), (GROUPS, 2)]
    os.close(first)
    assert pipes.ask_each((1,), GROUPS, 3) == []
    second = open_pipe(token, 1)
    assert pipes.ask_each((1,), GROUPS, 4) == [1] and read_question(second) == (GROUPS, 4)
    pipes.close()
    os.close(second)
    assert open_files() == before - 1


def test_nothing_is_left_behind(token: str) -> None:
    look(token, 1)
    write_words(token, "x")
    remove_folder(token)
    with pytest.raises(OSError, match="gone"), page_folder(token):
        pass
    assert not ask(token, 0, SPEAK, 0)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"number": true}', b'{"number": 1, "stacks": [1]}'])
def test_what_is_no_look_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        parse_look(content)
