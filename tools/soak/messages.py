"""Gives a daemon what it must not trust: messages, pages, and files and keys of other nodes, all of them damaged."""

from __future__ import annotations

import atexit
import contextlib
import time
import uuid
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distprof.heartbeat import page_folder
from distprof.heartbeat.page import Page, create_page, open_page
from distprof.heartbeat.slot import State
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.launcher.daemon.exchange.folder import FolderExchange
from distprof.launcher.daemon.exchange.joined import JoinedExchange
from distprof.launcher.daemon.exchange.store import StoreExchange
from distprof.launcher.daemon.hang_watch.watch import HangWatch
from distprof.launcher.daemon.messages import BadMessage, pack, unpack
from distprof.launcher.daemon.node_daemon import NodeDaemon
from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.launcher.daemon.requests import WindowRequest
from distprof.launcher.daemon.slow_rank.watch import SlowRankWatch
from distprof.launcher.daemon.status import to_message
from distprof.launcher.gather.receiver import Receiver
from distprof.launcher.gather.sender import Sender
from distprof.launcher.gather.wire import Ask, Done, Offer, Part
from distprof.launcher.store.tcp_store import TcpStore
from distprof.run_folder import RunFolder
from soak.originals import Random
from soak.trials import Kind, Outcome

_KEY, _OTHER = "a" * 16, "b" * 16


class Node:
    """A node whose daemon, receiver and sender are moved by the trial."""

    def __init__(self, folder: Path) -> None:
        page_folder.bases = lambda: [folder]
        self.run = RunFolder(folder / "run")
        self.run.shards.mkdir(parents=True, mode=0o755)
        (self.run.path / "nodes").mkdir(mode=0o755)
        token = create_page()
        self.page: Page = open_page(token)
        self.slot = SlotWriter(self.page, 0, SlotRank(0, 2, 0, 0, "host", "cpu", 0), time.perf_counter_ns)
        self.slot.iteration_begins(10, State.QUIET, 0, 5)
        self._token = token
        self.connect()

    def connect(self) -> None:
        """Begins anew in a part of the store that nobody has used: what was written stays."""
        self.store = TcpStore("127.0.0.1", _served().port, f"distprof/{uuid.uuid4().hex}/")
        watch = NodeWatch(self.page, _KEY)
        exchange = JoinedExchange(StoreExchange(self.store), FolderExchange(self.run, _KEY))
        hangs = HangWatch(self.run, self._token, watch.slots, 60.0, lambda _: None)
        slow_rank = SlowRankWatch(self.page, self._token, watch.slots, lambda _: None)
        self.daemon = NodeDaemon(watch, exchange, hangs, slow_rank)
        self.daemon.exchange()
        self.receiver = Receiver(self.store, self.store.add("nodes", 1), self.run)
        self.sender = Sender(self.store, 1, self.run, "host", lambda: False)

    def step(self) -> None:
        self.daemon.exchange()
        self.daemon.handle({"op": "status"})
        self.receiver.step()
        self.sender.step()


@cache
def _served() -> Any:
    distributed: Any = import_module("torch.distributed")  # other kinds of trials need no torch
    return distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def _damaged(rng: Random, data: bytes) -> bytes:
    """Returns the bytes with some of them changed, cut or repeated, or others."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 9)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    forms = (bytes(changed), data[: rng.randrange(len(data))], data * 3, rng.randbytes(rng.randrange(300)))
    return rng.choice(forms)


def message(rng: Random, node: Node) -> None:
    request = {"op": "window", **WindowRequest(1, 50, 1, 10, 1).message()}
    with contextlib.suppress(BadMessage, ValueError):
        node.daemon.handle(unpack(_damaged(rng, pack(rng.choice([request, {"op": "status"}])))))


def page(rng: Random, node: Node) -> None:
    for _ in range(rng.randrange(1, 200)):
        node.page.memory[4096 + rng.randrange(8192)] = rng.randrange(256)


def file(rng: Random, node: Node) -> None:
    folder = node.run.path / "nodes"
    (folder / f"{_OTHER}.status").write_bytes(_damaged(rng, pack(to_message(node.daemon.status()))))
    (folder / "request").write_bytes(_damaged(rng, pack(WindowRequest(1, 50, 1, 10, 1).message())))


def key(rng: Random, node: Node) -> None:
    number = node.store.add("daemons", 1)
    node.store.set(f"status/{number}", _damaged(rng, node.store.peek("status/1") or b"x"))
    node.store.set("request", _damaged(rng, pack(WindowRequest(1, 50, 1, 10, 1).message())))
    node.store.add("requests", 1)


def shards(rng: Random, node: Node) -> None:
    number = node.store.add("nodes", 1)
    offer = Offer(1, True, "../../host", "../../launch", {(1, 0): 100, (2, 1): 0})
    node.store.set(f"offer/{number}", _damaged(rng, offer.packed()))
    node.store.add("offers", 1)
    node.step()
    node.store.set(f"chunk/{number}", rng.randbytes(rng.randrange(200)))
    node.store.set("ask/1", _damaged(rng, Ask(1, (Part((0, 0), 0, 100),)).packed()))
    node.store.set("done/1", _damaged(rng, Done(1, {(0, 0): 1}).packed()))


_ABUSES: tuple[Callable[[Random, Node], None], ...] = (message, page, file, key, shards)
#: A part of the store is used for so many trials.
_TRIALS_OF_A_PART = 50


@cache
def _node() -> Node:
    folder = TemporaryDirectory(prefix="distprof-soak-")
    atexit.register(folder.cleanup)
    return Node(Path(folder.name))


def damage(rng: Random, _: Path) -> Outcome:
    """Damages one thing, and moves the node.  Raises if the daemon raises, or if anything appears in its run folder."""
    node = _node()
    if rng.randrange(_TRIALS_OF_A_PART) == 0:
        node.connect()
    before = _names(node.run.path)
    abuse = rng.choice(_ABUSES)
    abuse(rng, node)
    for _turn in range(2):
        node.step()
    added = _names(node.run.path) - before - {f"nodes/{_OTHER}.status", "nodes/request"}
    assert not added, f"{abuse.__name__} has made {sorted(added)}"
    assert any(status["node"] == _KEY for status in node.daemon.handle({"op": "status"})["nodes"])
    return Outcome(abuse.__name__, "lives")


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


MESSAGES = Kind("messages", damage, ("lives",), "the daemon lives, and nothing is written")
