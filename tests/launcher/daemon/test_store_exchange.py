"""Tests of two daemons that meet in a store, on two nodes that share no folder."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.hosts.real_store import Connect, new_keys, served

from distprof.heartbeat import page_folder
from distprof.heartbeat.page import create_page, open_page
from distprof.heartbeat.slot import State
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.launcher.daemon.exchange.folder import FolderExchange
from distprof.launcher.daemon.exchange.joined import JoinedExchange
from distprof.launcher.daemon.exchange.store import MAX_VALUE_BYTES, StoreExchange
from distprof.launcher.daemon.hang_watch.watch import HangWatch
from distprof.launcher.daemon.messages import pack, unpack
from distprof.launcher.daemon.node_daemon import NodeDaemon
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.launcher.daemon.requests import WindowRequest
from distprof.launcher.daemon.slow_rank.watch import SlowRankWatch
from distprof.launcher.daemon.status import NodeStatus, from_message, to_message
from distprof.launcher.store.key_values import StoreLost
from distprof.launcher.store.tcp_store import TcpStore
from distprof.run_folder import RunFolder

KEYS = ("a" * 16, "b" * 16)


@dataclass
class Node:
    daemon: NodeDaemon
    slots: list[SlotWriter]
    watch: NodeWatch


@pytest.fixture
def connect() -> Connect:
    return new_keys()


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Connect) -> list[Node]:
    monkeypatch.setattr(page_folder, "bases", lambda: [tmp_path])
    return [_node(tmp_path / f"run{number}", number, connect) for number in range(2)]


def _node(folder: Path, number: int, connect: Connect) -> Node:
    (folder / "nodes").mkdir(parents=True, mode=0o755)
    token = create_page()
    page = open_page(token)
    slots = []
    for local in range(2):
        who = SlotRank(2 * number + local, 4, local, number, f"host{number}", "cpu", 0)
        slots.append(SlotWriter(page, local, who, time.perf_counter_ns))
        slots[-1].iteration_begins(10, State.QUIET, 0, 5)
    watch, run = NodeWatch(page, KEYS[number]), RunFolder(folder)
    exchange = JoinedExchange(StoreExchange(connect()), FolderExchange(run, KEYS[number]))
    hangs = HangWatch(run, token, watch.slots, 60.0, lambda _: None)
    slow_rank = SlowRankWatch(page, token, watch.slots, lambda _: None)
    return Node(NodeDaemon(watch, exchange, hangs, slow_rank), slots, watch)


def new_connection(connect: Connect) -> CountedStore:
    return CountedStore("127.0.0.1", served().port, connect()._prefix)


def exchange(nodes: list[Node]) -> None:
    for _ in range(2):
        for node in nodes:
            node.daemon.exchange()


def test_each_daemon_knows_both_nodes_and_a_request_reaches_all_ranks(nodes: list[Node]) -> None:
    exchange(nodes)
    for node in nodes:
        found = node.daemon.handle({"op": "status"})["nodes"]
        assert sorted(status["node"] for status in found) == list(KEYS)
        assert sorted(rank.rank for status in map(from_message, found) for rank in status.ranks) == [0, 1, 2, 3]
    for number in (1, 2):
        request = WindowRequest(number=number, start=40 + number, counted=1, timed=10, window=number)
        assert nodes[0].daemon.handle({"op": "window", **request.message()}) == {"accepted": number}
        exchange(nodes)
        for slot in (slot for node in nodes for slot in node.slots):
            assert slot.iteration_begins(10 + number, State.QUIET, 0, 5)
            asked = slot.request()
            assert asked is not None and (asked.start, asked.window) == (40 + number, number)


class CountedStore(TcpStore):
    """A store that tells what is read and written."""

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.peeked: list[str] = []
        self.set_bytes: list[int] = []

    def peek(self, key: str) -> bytes | None:
        self.peeked.append(key)
        return super().peek(key)

    def set(self, key: str, value: bytes) -> None:
        self.set_bytes.append(len(value))
        super().set(key, value)


def test_all_others_are_read_only_when_somebody_asks_or_on_the_node_that_judges(
    nodes: list[Node], connect: Connect
) -> None:
    for rank, lowest in enumerate((0, 2, 4, 6)):
        status = replace(nodes[0].watch.status({}), node=f"{rank:016x}")
        ranks = tuple(replace(one, rank=lowest + local) for local, one in enumerate(status.ranks))
        StoreExchange(connect()).publish_status(pack(to_message(replace(status, ranks=ranks))))
    store = new_connection(connect)
    hangs = HangWatch(RunFolder(Path("none")), "", list, 60.0, lambda _: None)
    slow_rank = SlowRankWatch(nodes[1].watch._page, "", list, lambda _: None)
    last = NodeDaemon(nodes[1].watch, StoreExchange(store), hangs, slow_rank)  # its ranks are 2 and 3
    last.exchange()
    assert store.peeked == ["status/1"], "the first with a lower rank is enough"
    for _ in range(3):
        last.handle({"op": "status"})
    assert store.peeked == [f"status/{one}" for one in (1, 1, 2, 3, 4)], "and its own, the last one, never"


def test_the_status_of_a_large_node_goes_in_small_pieces(nodes: list[Node], connect: Connect) -> None:
    (one, *_), chosen = nodes[0].watch.status({}).ranks, random.Random(16)
    ranks = tuple(
        replace(one, rank=rank, error="".join(chosen.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=290)))
        for rank in range(40)
    )
    store = new_connection(connect)
    sender, reader = StoreExchange(store), StoreExchange(connect())
    seen = set()
    for turn in range(60):
        before = len(store.set_bytes)
        status = NodeStatus("c" * 16, "host", turn + 1, 0, ranks)
        sender.publish_status(pack(to_message(status)))
        assert len(store.set_bytes) - before <= 2
        for _, content in reader.statuses():
            found = from_message(unpack(content))
            assert found.ranks == ranks
            seen.add(found.wall_ns)
    assert len(seen) > 5 and 1 in seen, "each is whole, and newer ones follow"
    assert max(store.set_bytes) <= MAX_VALUE_BYTES


def test_what_else_lies_in_the_store_is_ignored(nodes: list[Node], connect: Connect) -> None:
    exchange(nodes)
    chosen, store = random.Random(16), connect()
    number = store.add("daemons", 1)
    whole = store.peek("status/1")
    assert whole is not None
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(chosen.randrange(1, 9)):
            damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        store.set(f"status/{number}", chosen.choice([bytes(damaged), chosen.randbytes(chosen.randrange(60))]))
        store.set("request", chosen.randbytes(chosen.randrange(80)))
        store.add("requests", 1)
        nodes[0].daemon.exchange()
        assert set(KEYS) <= {status["node"] for status in nodes[0].daemon.handle({"op": "status"})["nodes"]}
    store.set("request", b"\x81" + b"x" * (1 << 17))
    store.add("requests", 1)
    nodes[0].daemon.exchange()
    assert not any(slot.iteration_begins(12, State.QUIET, 0, 5) for node in nodes for slot in node.slots)


def test_a_daemon_whose_store_is_lost_goes_on_alone(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise StoreLost("gone")

    for name in ("publish_status", "statuses", "publish_request", "request"):
        monkeypatch.setattr(StoreExchange, name, lost)
    exchange(nodes)
    assert [status["node"] for status in nodes[0].daemon.handle({"op": "status"})["nodes"]] == [KEYS[0]]
    nodes[0].daemon.handle({"op": "window", **WindowRequest(1, 50, 1, 10, 1).message()})
    assert nodes[0].slots[0].iteration_begins(11, State.QUIET, 0, 5)
