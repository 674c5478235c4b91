"""The hang watches of two nodes, with real pages: the ranks are threads of this process that answer as ranks do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from distprof.heartbeat.hang_file import OUTSIDE, read_hangs
from distprof.heartbeat.look import LOOK, SPEAK, ask, open_pipe, read_question, write_answer
from distprof.heartbeat.page import create_page, open_page
from distprof.heartbeat.page_folder import remove_folder
from distprof.heartbeat.rank_look import Frame, GroupLook, OpLook, RankLook, Stack, pack_look
from distprof.heartbeat.slot import State
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.launcher.daemon.hang_watch.watch import HangWatch, Neighbour
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.run_folder import RunFolder

_STOP = b"x"
_ITERATION = 10
#: A grid of 2 x 2 ranks: (group, ranks, enqueued, completed) of each rank.  Rank 3 has not entered its row.
_GROUPS: Mapping[int, list[tuple[str, tuple[int, ...], int, int]]] = {
    0: [("row0", (0, 1), 5, 5), ("col0", (0, 2), 5, 4)],
    1: [("row0", (0, 1), 5, 5), ("col1", (1, 3), 5, 4)],
    2: [("row1", (2, 3), 5, 4), ("col0", (0, 2), 4, 4)],
    3: [("row1", (2, 3), 4, 4), ("col1", (1, 3), 4, 4)],
}


class Rank:
    """One rank: it has a slot, and a thread that answers."""

    def __init__(self, token: str, slot: int, number: int, *, answers: bool) -> None:
        page = open_page(token)
        who = SlotRank(number, 4, slot, 0, "host", "cpu", time.time_ns())
        self.writer = SlotWriter(page, slot, who, time.perf_counter_ns)
        self.begin(_ITERATION)
        self._token, self._slot, self._number, self._answers = token, slot, number, answers
        self._thread = Thread(target=self._run, args=(open_pipe(token, slot),))
        self._thread.start()

    def begin(self, iteration: int) -> None:
        self.writer.iteration_begins(iteration, State.QUIET, 0, 0, counts=False)

    def stop(self) -> None:
        ask(self._token, self._slot, _STOP, 0)
        self._thread.join()

    def _run(self, pipe: int) -> None:
        while (question := read_question(pipe))[0] != _STOP:
            if question[0] == LOOK and self._answers:
                write_answer(self._token, self._slot, pack_look(self._look(question[1])))

    def _look(self, number: int) -> RankLook:
        function = "load_batch" if self._number == 3 else "main"
        stack = Stack("MainThread", True, (Frame(function, "/home/me/train.py", 41),))
        groups = [
            GroupLook(key, key[:3], members, entered, done) for key, members, entered, done in _GROUPS[self._number]
        ]
        ops = [
            OpLook(key, 5, "all_reduce", "Float[8]", False)
            for key, _, entered, done in _GROUPS[self._number]
            if entered > done
        ]
        return RankLook(number, (stack,), tuple(groups), tuple(ops))


class Node:
    """One node with two ranks, and its watch."""

    def __init__(self, run: RunFolder, first: int, *, answers: bool = True) -> None:
        self.token = create_page()
        self.ranks = [Rank(self.token, slot, first + slot, answers=answers) for slot in range(2)]
        self.said: list[str] = []
        self.slots = NodeWatch(open_page(self.token), str(first)).slots
        self.watch = HangWatch(run, self.token, self.slots, 1.0, self.said.append)

    @property
    def heard(self) -> Neighbour:
        return Neighbour(tuple(info.rank for _, info in self.slots()), self.watch.evidence)

    def close(self) -> None:
        self.watch.close()
        for rank in self.ranks:
            rank.stop()
        remove_folder(self.token)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Callable[..., list[Node]]]:
    made: list[Node] = []

    def make(**how: Any) -> list[Node]:
        (tmp_path / "run").mkdir(mode=0o755)
        made.extend(Node(RunFolder(tmp_path / "run"), first, **how) for first in (0, 2))
        return made

    yield make
    for node in made:
        node.close()


def step(one: Node, other: Node, until: Callable[[], object]) -> None:
    """Lets both daemons run until something is true."""
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end, "it does not become true"
        one.watch.step([other.heard])
        other.watch.step([one.heard])
        time.sleep(0.02)


def test_two_nodes_find_the_root_together_and_say_it_once(nodes: Callable[..., list[Node]], tmp_path: Path) -> None:
    one, other = nodes()
    step(one, other, lambda: one.said)
    (line,) = one.said
    assert "stuck outside a collective: rank 3 in load_batch (train.py:41)" in line
    assert "ranks 0-2 wait in all_reduce" in line and line.endswith("hangs/000.txt")
    assert "load_batch" not in (tmp_path / "run/hangs/000.txt").read_text().partition("by the rank")[2]  # of this node
    seen = one.watch.hang
    assert seen is not None and (seen.kind, seen.ranks, seen.iteration) == (OUTSIDE, (3,), _ITERATION)
    until = time.monotonic() + 3  # no second line
    step(one, other, lambda: time.monotonic() > until)
    assert len(one.said) == 1 and other.said == []

    for node in (one, other):
        for rank in node.ranks:
            rank.begin(_ITERATION + 1)
    step(one, other, lambda: len(one.said) > 1)
    assert "the job goes on: iteration 10 is over" in one.said[1] and one.watch.hang is None
    (hang,) = read_hangs(RunFolder(tmp_path / "run"))
    assert hang.moved_wall_ns >= hang.wall_ns

    step(one, other, lambda: len(one.said) > 2)  # armed again
    assert "Iteration 11 runs for" in one.said[2] and len(read_hangs(RunFolder(tmp_path / "run"))) == 2


def test_ranks_that_do_not_answer(nodes: Callable[..., list[Node]]) -> None:
    """They are this process, which runs: py-spy may see it, and nobody is known to wait."""
    one, other = nodes(answers=False)
    step(one, other, lambda: one.said)
    assert one.watch.hang is not None and one.watch.hang.kind == OUTSIDE and one.watch.hang.ranks == (0, 1, 2, 3)
    assert ask(one.token, 0, SPEAK, 0) and not ask(one.token, 99, SPEAK, 0)
