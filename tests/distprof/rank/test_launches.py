"""Tests of which shards belong to the last job, by the times at which launchers and ranks ran."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import pytest

from distprof.rank.launches import launch_of_this_process, newest_job, ran_apart
from distprof.records import Header

ASK = "from distprof.rank.launches import launch_of_this_process as ask; print(*ask())"


class Seen(NamedTuple):
    """A shard of a rank; the times in seconds are the start of its launcher and the end of the rank."""

    launch: str
    rank: int
    began: int
    until: int
    host: str = "node0"
    clock: str = ""


def facts(seen: Seen) -> tuple[Header, int]:
    header = Header("x", seen.rank, 2, launch=seen.launch, host=seen.host, clock_domain=seen.clock)
    return replace(header, launched_ns=seen.began, wall_ns=seen.until), seen.until


@pytest.mark.parametrize(
    ("earlier", "newest"),
    [
        # A rendezvous id is used again, and this time rank 1 writes no shard.
        ([Seen("a", 0, 1, 9), Seen("b", 1, 2, 9, "node1")], [Seen("c", 0, 10, 20)]),
        # Three jobs, and the last has ranks on other nodes than those before.
        ([Seen("a", 0, 1, 9), Seen("b", 0, 11, 12)], [Seen("c", 0, 13, 20, "node1"), Seen("d", 1, 14, 20, "node2")]),
        # On one host all clocks agree: each job has one rank there.
        ([Seen("a", 1, 1, 9)], [Seen("c", 0, 10, 20)]),
        # An elastic job: a node joins, both restart, the first node leaves, another joins.
        (
            [],
            [Seen("a", 0, 1, 9), Seen("b", 1, 30, 40), Seen("a", 0, 1, 39), Seen("c", 0, 37, 50), Seen("b", 1, 30, 50)],
        ),
        # Restarted workers belong to the launcher that starts them.
        ([], [Seen("a", 0, 1, 9), Seen("a", 0, 1, 50)]),
        # Two hosts whose clocks disagree, and nothing contradicts that they ran one job.
        ([], [Seen("a", 0, 1, 9), Seen("b", 1, 100, 109, "node1")]),
        # Two machines of one name, whose clocks disagree, and two containers of different names on one machine.
        ([], [Seen("a", 0, 1, 9, clock="boot1"), Seen("b", 1, 100, 109, clock="boot2")]),
        ([Seen("a", 1, 1, 9, "box1", "boot1")], [Seen("c", 0, 10, 20, "box2", "boot1")]),
        # Shards of an older distprof have no launch.
        ([], [Seen("", 0, 0, 9), Seen("", 0, 0, 90), Seen("b", 1, 100, 109)]),
        ([], []),
    ],
)
def test_a_job_is_the_launchers_that_ran_at_the_same_time(earlier: list[Seen], newest: list[Seen]) -> None:
    assert newest_job([*newest, *earlier], facts) == (newest, earlier)


def test_ranks_of_one_job_that_never_ran_together_are_told() -> None:
    one, other = Seen("a", 0, 1, 9), Seen("b", 1, 100, 109, "node1")
    assert ran_apart([other, one], facts) == ([one], [other])
    assert ran_apart([other, one._replace(until=100)], facts) is None


def ask_in_child(queue: multiprocessing.Queue[tuple[str, int]]) -> None:
    queue.put(launch_of_this_process({}))


def test_ranks_of_one_parent_share_a_launch() -> None:
    """torchrun and ``multiprocessing`` start ranks so; two processes that are started separately have a launch each."""
    own = launch_of_this_process({})
    queue: multiprocessing.Queue[tuple[str, int]] = multiprocessing.Queue()
    child = multiprocessing.get_context("fork").Process(target=ask_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60)[0] == own[0] == f"{os.uname().nodename}-{os.getpid()}-{own[0].rpartition('-')[2]}"
    child.join()

    def told(**variables: str) -> str:
        command = [sys.executable, "-c", ASK]
        return subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, check=True
        ).stdout.split()[0]

    assert told(TORCHELASTIC_RUN_ID="7") == own[0]
    assert len({own[0], told(), told()}) == 3
