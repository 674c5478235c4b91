"""Tests of shards that go from node to node through a real store; the test itself moves both sides."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support import synthetic
from support.hosts.real_store import Connect, new_keys

from distprof.launcher.gather import receiver as receiver_module
from distprof.launcher.gather import sender as sender_module
from distprof.launcher.gather import wire
from distprof.launcher.gather.folders import announce, first_node
from distprof.launcher.gather.receiver import Receiver
from distprof.launcher.gather.sender import Sender
from distprof.records import Header
from distprof.run_folder import RunFolder

JOB = synthetic.Job(dp=4)


@dataclass
class Nodes:
    """The first node and two others, with folders of their own; ranks 0, (1, 2) and 3."""

    runs: list[RunFolder]
    connect: Connect
    receiver: Receiver
    senders: list[Sender]
    recording: bool = False

    def step(self) -> None:
        for sender in self.senders:
            sender.step()
        self.receiver.step()

    def run(self, until: Callable[[], bool], most: int = 3000) -> None:
        for _ in range(most):
            self.step()
            if until():
                return
        raise AssertionError("it does not come to an end")

    def finish(self) -> None:
        for sender in self.senders:
            sender.finish()
        self.run(lambda: self.receiver.is_complete and all(sender.is_complete for sender in self.senders))

    def received(self) -> dict[str, bytes]:
        return {
            path.name[: len("rank00000.g0")]: path.read_bytes()
            for path in self.runs[0].shard_files()
            if path not in self.runs[0].own_shards().values()
        }


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    monkeypatch.setattr(wire, "CHUNK_BYTES", 5000)
    for module in (sender_module, receiver_module):
        monkeypatch.setattr(module, "CHUNK_BYTES", 5000)
    connect, runs = new_keys(), []
    for number, ranks in enumerate(((0,), (1, 2), (3,))):
        run = RunFolder(tmp_path / str(number) / "x", f"launch{number}")
        run.shards.mkdir(parents=True, mode=0o755)
        for folder in (run.path, run.shards):
            folder.chmod(0o755)
        runs.append(run)
        for rank in ranks:
            synthetic.write_shard(run.shard_path(rank, 0), synthetic.rank_records(JOB, rank))
    store = connect()
    receiver = Receiver(store, store.add("nodes", 1), runs[0])
    made = Nodes(runs, connect, receiver, [])
    for number in (1, 2):
        store = connect()
        made.senders.append(
            Sender(store, store.add("nodes", 1), runs[number], f"host{number}", lambda: made.recording)
        )  # fmt: skip
    return made


def originals(nodes: Nodes) -> dict[str, bytes]:
    return {path.name[: len("rank00000.g0")]: path.read_bytes() for run in nodes.runs[1:] for path in run.shard_files()}


def test_all_shards_come_whole_and_nothing_of_them_stays_in_the_store(nodes: Nodes) -> None:
    nodes.finish()
    assert nodes.received() == originals(nodes)
    assert len(nodes.received()) == 3 and all(len(data) > 5000 for data in nodes.received().values())
    store = nodes.connect()
    assert all(store.peek(f"{name}/{number}") is None for name in ("chunk", "ask") for number in (1, 2, 3))
    assert nodes.receiver.acknowledged and nodes.receiver.senders() == ["host1", "host2"]
    assert not any(sender.is_damaged for sender in nodes.senders)


def test_what_a_window_added_is_sent_at_its_end_and_not_within_it(nodes: Nodes) -> None:
    path = nodes.runs[2].shard_path(3, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:7000])
    nodes.run(lambda: nodes.received().get("rank00003.g0") == whole[:7000])
    nodes.recording = True
    with path.open("ab") as file:
        file.write(whole[7000:])
    for _ in range(20):
        nodes.step()
    assert nodes.received()["rank00003.g0"] == whole[:7000]
    nodes.recording = False
    nodes.run(lambda: nodes.received()["rank00003.g0"] == whole)
    nodes.finish()
    assert nodes.received() == originals(nodes)


def test_bytes_that_differ_are_sent_anew(nodes: Nodes) -> None:
    nodes.run(lambda: len(nodes.received()) == 3)
    nodes.run(lambda: nodes.received() == originals(nodes))
    for path in nodes.runs[0].shard_files():
        if path not in nodes.runs[0].own_shards().values():
            path.write_bytes(path.read_bytes()[:-1] + b"?")  # what lies here already is not what is sent
    anew = Receiver(nodes.connect(), 1, nodes.runs[0])
    nodes.receiver = anew
    nodes.finish()
    assert nodes.received() == originals(nodes)


def test_a_shard_that_was_written_anew_is_sent_anew(nodes: Nodes) -> None:
    """As a rank does that reduces windows which come back; its node may die before the end of the job."""
    nodes.run(lambda: nodes.received() == originals(nodes))
    path = nodes.runs[2].shard_path(3, 0)
    for smaller in (path.read_bytes()[:6500], b"".join((path.read_bytes()[:1000], path.read_bytes()[2000:]))):
        path.with_suffix(".new").write_bytes(smaller)
        path.with_suffix(".new").replace(path)
        nodes.run(lambda: nodes.received() == originals(nodes))


def test_a_receiver_goes_on_where_another_has_ended(nodes: Nodes) -> None:
    path = nodes.runs[2].shard_path(3, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:7000])
    nodes.run(lambda: nodes.received().get("rank00003.g0") == whole[:7000])
    path.write_bytes(whole)
    nodes.receiver = Receiver(nodes.connect(), 1, nodes.runs[0])
    nodes.finish()
    assert nodes.received() == originals(nodes)


def test_only_shards_of_this_launch_are_sent_and_those_of_one_rank_do_not_collide(nodes: Nodes) -> None:
    header, *records = synthetic.rank_records(JOB, 3)
    assert isinstance(header, Header)
    earlier = replace(header, launch="earlier")
    synthetic.write_shard(nodes.runs[2].shard_path(3, 1), [earlier, *records])
    synthetic.write_shard(nodes.runs[1].shard_path(3, 0), synthetic.rank_records(JOB, 3)[:5])  # it moved to this node
    nodes.finish()
    names = [path.name for path in nodes.runs[0].shards_of(3)]
    assert len(names) == 2 and all(name.startswith("rank00003.g0.") for name in names)


def test_a_node_that_shares_the_folder_sends_nothing(nodes: Nodes) -> None:
    announce(nodes.connect(), nodes.runs[0], "host0")
    first, other = (first_node(nodes.connect(), run) for run in nodes.runs[:2])
    assert first is not None and other is not None
    assert (first.host, first.shares_folder, other.shares_folder) == ("host0", True, False)
    sharing = Sender(nodes.connect(), 2, nodes.runs[1], "host1", lambda: False, shares_folder=True)
    nodes.senders[0] = sharing
    nodes.senders[1].finish()
    nodes.run(lambda: nodes.receiver.is_complete and nodes.senders[1].is_complete)
    assert not sharing.is_complete, "its job goes on, and nobody waits for it"
    waiting = Receiver(nodes.connect(), 1, nodes.runs[0], waits_for_all=True)
    nodes.receiver = waiting
    for _ in range(20):
        waiting.step()
    assert waiting.incomplete() == ["host1"]
    nodes.finish()
    assert list(nodes.received()) == ["rank00003.g0"]


def test_a_node_that_died_is_named_with_what_it_has_sent(nodes: Nodes) -> None:
    nodes.run(lambda: nodes.received() == originals(nodes))
    nodes.connect().add("nodes", 1)  # a fourth one, that ended before it had anything
    nodes.senders[0].finish()
    nodes.run(lambda: nodes.senders[0].is_complete)
    nodes.receiver.step()
    assert nodes.receiver.incomplete() == ["host2 (what it sent earlier is here)", "launcher 4"]


def test_a_node_that_does_not_answer_loses_its_turn(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "_PATIENCE_S", 0.0)
    nodes.senders[0].finish()
    while nodes.senders[0].step() and nodes.connect().peek("offer/2") is None:
        pass
    silent, nodes.senders = nodes.senders[0], nodes.senders[1:]
    for _ in range(10):
        nodes.receiver.step()
    monkeypatch.setattr(receiver_module, "_PATIENCE_S", 60.0)
    nodes.senders[0].finish()
    nodes.run(lambda: nodes.senders[0].is_complete)
    assert "rank00003.g0" in nodes.received() and nodes.receiver.incomplete() == ["host1"]
    assert not silent.is_complete


def test_a_full_disk_ends_the_gathering_of_a_node(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "ftruncate", full)
    for sender in nodes.senders:
        sender.finish()
    nodes.run(lambda: len(nodes.receiver.incomplete()) == 2 and "written" in nodes.receiver.incomplete()[1])
    why = "it cannot be written: No space left on device"
    assert nodes.receiver.incomplete() == [f"host1 ({why})", f"host2 ({why})"]


def test_malformed_messages_write_nothing_and_stop_nobody(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth party writes what it likes under the keys of a fourth node, and under those that the senders read."""
    monkeypatch.setattr(receiver_module, "_PATIENCE_S", 0.02)
    chosen, store = random.Random(16), nodes.connect()
    number = store.add("nodes", 1)
    offer = wire.Offer(1, True, "host", "launch", {(1, 0): 100}).packed()
    for turn in range(150):
        damaged = bytearray(offer)
        for _ in range(chosen.randrange(1, 5)):
            damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        store.set(f"offer/{number}", chosen.choice([bytes(damaged), chosen.randbytes(40), b"\xc1" * turn]))
        store.add("offers", 1)
        store.set(f"chunk/{number}", chosen.randbytes(chosen.randrange(200)))
        for node in (2, 3):
            store.set(f"ask/{node}", chosen.randbytes(40))
            store.set(f"done/{node}", chosen.randbytes(40))
        nodes.step()
    for sender in nodes.senders:
        sender.finish()
    nodes.run(lambda: all(sender.is_complete for sender in nodes.senders))
    assert nodes.received() == originals(nodes)
    assert sorted(path.name for path in nodes.runs[0].path.iterdir()) == ["shards"]
