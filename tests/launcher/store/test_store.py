"""Tests of the store of a rendezvous, and of the relay through which the daemon reaches it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import msgpack
import pytest
from support.hosts.real_store import new_keys, served
from torch._C._distributed_c10d import TCPStore
from torch.distributed.elastic.rendezvous import RendezvousParameters, registry

from distprof.launcher.store.key_values import KeyValues, StoreLost
from distprof.launcher.store.relay import Relay, RelayedStore, relay_pair
from distprof.launcher.store.rendezvous import Rendezvous, is_served_here
from distprof.launcher.store.tcp_store import TcpStore


@pytest.fixture(params=["direct", "relayed"])
def store(request: pytest.FixtureRequest) -> Iterator[KeyValues]:
    direct = new_keys()()
    if request.param == "direct":
        yield direct
        return
    here, there = relay_pair()
    relay = Relay(here)
    here.setblocking(True)

    def answer() -> None:
        while relay.answer(direct):
            pass

    thread = threading.Thread(target=answer)
    thread.start()
    yield RelayedStore(there)
    there.close()
    thread.join()
    relay.close()


def test_keys_are_written_read_counted_and_removed_without_waiting(store: KeyValues) -> None:
    assert store.peek("a") is None
    for value in (b"", b"\0\xff" * 500, b"text"):
        store.set("a", value)
        assert store.peek("a") == value
    store.delete("a")
    assert store.peek("a") is None
    assert [store.add("n", 0), store.add("n", 2), store.add("n", 1), store.add("n", 0)] == [0, 2, 3, 3]


def test_prefixes_are_apart() -> None:
    connect, other = new_keys(), new_keys()
    connect().set("a", b"1")
    assert (connect().peek("a"), other().peek("a")) == (b"1", None)


def test_a_store_that_has_gone_is_said_to_be_lost_and_stays_lost(capfd: pytest.CaptureFixture[str]) -> None:
    """torch warns on stderr where a call meets a server that has ended: there is no such call."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = server.port
    store = TcpStore("127.0.0.1", port, "x/")
    assert is_served_here(port)
    del server
    assert not is_served_here(port)
    for _ in range(2):
        with pytest.raises(StoreLost, match="has ended"):
            store.peek("a")
    assert capfd.readouterr().err == ""


def test_the_relay_lives_on_whatever_it_gets() -> None:
    here, there = relay_pair()
    relay, chosen = Relay(here), random.Random(16)
    store = new_keys()()
    for _ in range(300):
        there.send(chosen.choice([chosen.randbytes(20) or b"x", msgpack.packb([1, "__init__", "a", None])]))
        assert relay.answer(store)
        assert msgpack.unpackb(there.recv(1 << 16))[1] is False
    store.set("long", b"x" * (1 << 17))
    there.send(msgpack.packb([7, "peek", "long", None]))
    assert relay.answer(store)
    assert msgpack.unpackb(there.recv(1 << 16))[:2] == [7, False]
    there.send(msgpack.packb([8, "peek", "a", None]))
    assert relay.answer(None)
    assert msgpack.unpackb(there.recv(1 << 16)) == [8, False, "there is no store"]
    relay.close()
    with pytest.raises(OSError):
        RelayedStore(there).peek("a")
    there.close()


def test_a_daemon_that_has_gone_ends_the_relay() -> None:
    here, there = relay_pair()
    relay = Relay(here)
    assert relay.answer(None)
    there.close()
    assert not relay.answer(None)
    relay.close()


@pytest.mark.parametrize("backend", ["c10d", "static"])
def test_the_rendezvous_of_torchrun_is_seen_and_its_store_kept(backend: str) -> None:
    rendezvous = Rendezvous()
    assert rendezvous.address() is None
    assert not rendezvous.has_no_store
    probe = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = probe.port
    del probe
    given = {"rank": 0} if backend == "static" else {"is_host": True}
    before = registry.get_rendezvous_handler
    with rendezvous.watched():
        handler = registry.get_rendezvous_handler(
            RendezvousParameters(backend, f"127.0.0.1:{port}", "x", 1, 1, local_addr="127.0.0.1", **given)
        )
    assert registry.get_rendezvous_handler is before
    if backend == "static":
        assert rendezvous.address() is None
        handler.next_rendezvous()
    assert not rendezvous.has_no_store
    assert rendezvous.address() == ("127.0.0.1", port)
    assert is_served_here(port)
    del handler
    TcpStore("127.0.0.1", port, "x/").set("a", b"1")
    rendezvous.release()
    assert not is_served_here(port)
    assert is_served_here(served().port)
