"""Tests of the watch with a real page and real pipes: this process answers for the ranks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

import pytest

from distprof.heartbeat.look import GROUPS, open_pipe, read_question
from distprof.heartbeat.page import create_page, open_page
from distprof.heartbeat.page_folder import remove_folder
from distprof.heartbeat.slot import GroupProgress, State
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.launcher.daemon.slow_rank.history import LEAST
from distprof.launcher.daemon.slow_rank.watch import SlowRankWatch

RANKS = range(3)


class Node:
    """Three ranks between two windows, and the watch of their node."""

    def __init__(self, token: str) -> None:
        page = open_page(token)
        self.ranks = {
            rank: SlotWriter(page, rank, SlotRank(rank, 3, rank, 0, "host", "cpu", 0), time.perf_counter_ns)
            for rank in RANKS
        }
        self.pipes = {rank: open_pipe(token, rank) for rank in RANKS}
        self.said: list[str] = []
        self.iteration = 10
        self.begin({})
        self.watch = SlowRankWatch(page, token, NodeWatch(page, "node").slots, self.said.append)

    def begin(self, states: Mapping[int, State], window: int = 1) -> None:
        self.iteration += 1
        for rank, slot in self.ranks.items():
            slot.iteration_begins(self.iteration, states.get(rank, State.QUIET), window, 1_000)

    def look(self, late: int | None, silent: int | None = None) -> None:
        """Lets the watch ask, lets the ranks answer, and lets an iteration end."""
        self.watch.step()
        for rank, slot in self.ranks.items():
            if rank != silent:
                assert read_question(self.pipes[rank])[0] == GROUPS
                enqueued = self.iteration - int(rank == late)
                slot.groups([GroupProgress("all", 3, 7, enqueued, self.iteration - 1)])

    def sampled(self) -> int:
        return max((found.sampled for found in self.watch.looks().values()), default=0)


@pytest.fixture
def node() -> Iterator[Node]:
    token = create_page()
    made = Node(token)
    yield made
    for pipe in made.pipes.values():
        os.close(pipe)
    remove_folder(token)


def test_lines_say_when_a_rank_begins_to_be_slow_and_when_it_ends(node: Node) -> None:
    for _ in range(LEAST + 2):
        node.look(late=1)
        node.begin({})
    (line,) = node.said
    assert line.startswith(
        f"rank 1 has been the slowest in {LEAST} of the last {LEAST} sampled iterations, which costs"
    )
    assert node.watch.slowest is not None and node.watch.slowest.rank == 1
    for number in range(60):
        node.look(late=(0, 2)[number % 2])
        node.begin({})
    assert node.said[1:] == ["rank 1 is no longer the slowest again and again"]


def test_recorded_iterations_and_those_before_the_first_window_do_not_count(node: Node) -> None:
    for states, window in (({}, 0), ({2: State.TIMED}, 1), ({2: State.ENDED}, 1)):
        for _ in range(4):
            node.look(late=1)
            node.begin(states, window)
    assert node.sampled() == 0


def test_a_rank_that_does_not_answer_is_not_asked_again_and_nothing_counts(node: Node) -> None:
    node.look(late=1)
    for _ in range(4):
        node.begin({})
        node.look(late=1, silent=2)
    os.set_blocking(node.pipes[2], False)
    assert read_question(node.pipes[2])[0] == GROUPS
    with pytest.raises(BlockingIOError):
        read_question(node.pipes[2])
    assert node.sampled() == 0
