"""Tests of two daemons that meet in the run's folder, and of what else may lie there."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from distprof.heartbeat import page_folder
from distprof.heartbeat.page import Page, create_page, open_page
from distprof.heartbeat.slot import State
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.launcher.daemon.client import DaemonClient
from distprof.launcher.daemon.exchange.folder import FolderExchange
from distprof.launcher.daemon.hang_watch.watch import HangWatch
from distprof.launcher.daemon.messages import pack
from distprof.launcher.daemon.node_daemon import NodeDaemon
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.launcher.daemon.requests import WindowRequest
from distprof.launcher.daemon.slow_rank.watch import SlowRankWatch
from distprof.run_folder import RunFolder

KEYS = ("a" * 16, "b" * 16)


@dataclass
class Node:
    """A node of two ranks in this process, with a daemon that the test moves."""

    daemon: NodeDaemon
    slots: list[SlotWriter]
    page: Page


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(page_folder, "bases", lambda: [tmp_path])
    (tmp_path / "run" / "nodes").mkdir(parents=True, mode=0o755)
    return RunFolder(tmp_path / "run")


@pytest.fixture
def nodes(run: RunFolder) -> list[Node]:
    return [_node(run, number) for number in range(2)]


def _node(run: RunFolder, number: int) -> Node:
    token = create_page()
    page = open_page(token)
    slots = []
    for local in range(2):
        who = SlotRank(2 * number + local, 4, local, number, f"host{number}", "cpu", 0)
        slots.append(SlotWriter(page, local, who, time.perf_counter_ns))
        slots[-1].iteration_begins(10, State.QUIET, 0, 5)
    watch = NodeWatch(page, KEYS[number])
    hangs = HangWatch(run, token, watch.slots, 60.0, lambda _: None)
    slow_rank = SlowRankWatch(page, token, watch.slots, lambda _: None)
    return Node(NodeDaemon(watch, FolderExchange(run, KEYS[number]), hangs, slow_rank), slots, page)


def exchange(nodes: list[Node]) -> None:
    for _ in range(2):
        for node in nodes:
            node.daemon.exchange()


def test_each_daemon_knows_all_nodes(nodes: list[Node], run: RunFolder) -> None:
    exchange(nodes)
    for node in nodes:
        found = node.daemon.handle({"op": "status"})["nodes"]
        assert sorted(status["node"] for status in found) == list(KEYS)
    seen = DaemonClient(run).nodes()  # of no node of the job: by the folder
    assert sorted(rank.rank for status in seen for rank in status.ranks) == [0, 1, 2, 3]


def test_a_request_to_one_daemon_reaches_the_ranks_of_all(nodes: list[Node], run: RunFolder) -> None:
    request = WindowRequest(number=1, start=50, counted=1, timed=10, window=1)
    assert nodes[0].daemon.handle({"op": "window", **request.message()}) == {"accepted": 1}
    exchange(nodes)
    for node in nodes:
        for slot in node.slots:
            assert slot.iteration_begins(11, State.QUIET, 0, 5)
            asked = slot.request()
            assert asked is not None and (asked.start, asked.window) == (50, 1)
    exchange(nodes)  # the request still lies there
    assert not any(slot.iteration_begins(12, State.QUIET, 0, 5) for node in nodes for slot in node.slots)
    DaemonClient(run).send(WindowRequest(number=2, start=80, counted=0, timed=3, window=2, ranks=(1, 2)))
    exchange(nodes)
    notices = [slot.iteration_begins(13, State.QUIET, 0, 5) for node in nodes for slot in node.slots]
    assert notices == [False, True, True, False]
    assert DaemonClient(run).last_request() == 2


def test_what_else_lies_in_the_folder_is_ignored(nodes: list[Node], run: RunFolder) -> None:
    exchange(nodes)
    chosen, folder = random.Random(16), run.path / "nodes"
    whole = (folder / f"{KEYS[0]}.status").read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chosen.randrange(1, 9)):
            damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        (folder / f"{'c' * 16}.status").write_bytes(bytes(damaged))
        (folder / "request").write_bytes(chosen.randbytes(chosen.randrange(80)))
        nodes[0].daemon.exchange()
        assert set(KEYS) <= {status["node"] for status in nodes[0].daemon.handle({"op": "status"})["nodes"]}
    os.mkfifo(folder / f"{'d' * 16}.status")
    (folder / f"{'e' * 16}.status").write_bytes(b"x" * (1 << 19))
    (folder / "request").unlink()
    (folder / "request").symlink_to("/dev/zero")
    nodes[0].daemon.exchange()
    assert not any(slot.iteration_begins(12, State.QUIET, 0, 5) for node in nodes for slot in node.slots)


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o777), lambda path: path.rename(path.with_name("moved"))])
def test_a_daemon_goes_on_alone_where_the_folder_cannot_be_used(
    nodes: list[Node], run: RunFolder, spoil: Callable[[Path], object]
) -> None:
    spoil(run.path / "nodes")
    exchange(nodes)
    assert [status["node"] for status in nodes[0].daemon.handle({"op": "status"})["nodes"]] == [KEYS[0]]
    request = WindowRequest(number=1, start=50, counted=1, timed=10, window=1)
    nodes[0].daemon.handle({"op": "window", **request.message()})
    assert nodes[0].slots[0].iteration_begins(11, State.QUIET, 0, 5)


def test_an_old_request_is_not_laid_again(nodes: list[Node]) -> None:
    node = nodes[0]
    for number in (2, 1):
        node.daemon.handle({"op": "window", **WindowRequest(number, 40 + number, 1, 1, 1).message()})
    assert node.slots[0].iteration_begins(11, State.QUIET, 0, 5)
    found = node.slots[0].request()
    assert found is not None and found.number == 2


def test_a_request_to_an_earlier_launch_in_this_folder_is_not_laid(nodes: list[Node], run: RunFolder) -> None:
    """A job that Slurm starts again has the folder of before."""
    DaemonClient(run).send(WindowRequest(number=4, start=5000, counted=1, timed=10, window=3))
    again = _node(run, 0)
    exchange([again])
    assert not any(slot.iteration_begins(11, State.QUIET, 0, 5) for slot in again.slots)
    DaemonClient(run).send(WindowRequest(number=5, start=80, counted=1, timed=10, window=1))
    exchange([again])
    assert all(slot.iteration_begins(12, State.QUIET, 0, 5) for slot in again.slots)


def test_unknown_ops_and_bad_requests_are_refused(nodes: list[Node]) -> None:
    for message in ({}, {"op": "run"}, {"op": "window"}, {"op": "window", "number": 1, "start": -1}):
        with pytest.raises(ValueError):
            nodes[0].daemon.handle(message)
    assert not nodes[0].slots[0].iteration_begins(11, State.QUIET, 0, 5)
    assert len(pack({"op": "status"})) < 20
