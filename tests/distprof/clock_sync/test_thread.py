"""Hosts compare their clocks through a real store: within the stated bound, in no order, and waiting for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any

import pytest
from support.hosts.clocks import SkewedClock
from torch._C._distributed_c10d import TCPStore

from distprof.clock_sync import store_channel
from distprof.clock_sync.ping_pong import PROBES
from distprof.clock_sync.store_channel import StoreChannel, connect
from distprof.clock_sync.thread import ClockSync
from distprof.records import ClockOffset

PATIENCE_S = 60.0


class Host:
    """A host with a clock of its own, and what it measured."""

    def __init__(self, store: TCPStore, domain: str, clock: SkewedClock) -> None:
        self.clock, self.domain = clock, domain
        self.found: list[ClockOffset] = []
        self.measured = Event()
        self.channels: list[StoreChannel] = []
        self._store = store
        self.sync = ClockSync(self._open, clock, domain, self._publish)

    def _open(self) -> StoreChannel:
        self.channels.append(StoreChannel(partial(connect, self._store.host, self._store.port), "clock/"))
        return self.channels[-1]

    def _publish(self, offset: ClockOffset) -> None:
        self.found.append(offset)
        self.measured.set()

    def next(self) -> ClockOffset:
        assert self.measured.wait(PATIENCE_S)
        self.measured.clear()
        return self.found[-1]


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def new_host(store: TCPStore) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def start(domain: str, shift_ns: int = 0, drift: float = 0.0) -> Host:
        hosts.append(Host(store, domain, SkewedClock(shift_ns, drift)))
        hosts[-1].sync.start()
        return hosts[-1]

    yield start
    for host in hosts:
        host.sync.stop()
    assert not any(host.sync.is_alive for host in hosts)


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_reference(store: TCPStore) -> Callable[[], bool]:
    return lambda: store.check(["clock/hosts"])


def error_ns(offset: ClockOffset, own: SkewedClock, reference: SkewedClock) -> int:
    return abs(reference.of(own.truth(offset.mono_ns)) - (offset.mono_ns + offset.offset_ns))


@pytest.mark.parametrize("shift_ns", [0, 30 * 10**9, -30 * 10**9, 5 * 10**17])
@pytest.mark.parametrize("drift", [0.0, 150e-6, -150e-6])
def test_the_true_offset_lies_within_the_bound(
    store: TCPStore, new_host: Callable[..., Host], shift_ns: int, drift: float
) -> None:
    reference = new_host("a")
    wait_for(is_reference(store))
    other = new_host("b", shift_ns, drift)
    first = other.next()
    other.sync.measure_again()
    for offset in (first, other.next()):
        # In the few milliseconds of a probe the clocks drift apart by less than a nanosecond each microsecond.
        assert error_ns(offset, other.clock, reference.clock) <= offset.bound_ns + 2
        assert offset.reference == "a"
        assert offset.probes == PROBES
    assert reference.found == []


def test_ranks_of_one_host_measure_nothing(store: TCPStore, new_host: Callable[..., Host]) -> None:
    first, second = new_host("a"), new_host("a")
    wait_for(lambda: first.sync.is_alive != second.sync.is_alive)
    assert first.found == second.found == []


def test_nothing_stays_in_the_store_but_the_counters(store: TCPStore, new_host: Callable[..., Host]) -> None:
    new_host("a")
    wait_for(is_reference(store))
    other = new_host("b")
    other.next()
    wait_for(lambda: store.num_keys() == 4)
    assert store.check([f"clock/{key}" for key in ("host/a", "host/b", "hosts", "tickets")])


def test_many_hosts_are_answered_one_after_the_other(store: TCPStore, new_host: Callable[..., Host]) -> None:
    reference = new_host("a")
    wait_for(is_reference(store))
    others = [new_host(f"host{number}", number * 10**9) for number in range(6)]
    for other in others:
        offset = other.next()
        assert error_ns(offset, other.clock, reference.clock) <= offset.bound_ns + 2


def test_nobody_measures_while_steps_are_timed(store: TCPStore, new_host: Callable[..., Host]) -> None:
    reference = new_host("a")
    wait_for(is_reference(store))
    reference.sync.pause()
    other = new_host("b")
    assert not other.measured.wait(0.2)
    reference.sync.resume()
    other.next()
    other.sync.pause()
    other.sync._wanted.set()
    assert not other.measured.wait(0.2)
    other.sync.resume()
    other.next()


def test_a_round_that_timed_steps_interrupt_counts_with_the_probes_that_it_has(
    store: TCPStore, new_host: Callable[..., Host]
) -> None:
    reference = new_host("a")
    wait_for(is_reference(store))
    calls = iter(range(PROBES))
    reference.sync._may_go_on = lambda: next(calls) < 9  # type: ignore[method-assign]
    other = new_host("b", 10**9)
    offset = other.next()
    assert offset.probes == 10
    assert error_ns(offset, other.clock, reference.clock) <= offset.bound_ns + 2
    del reference.sync._may_go_on
    other.sync._may_go_on = lambda: False  # type: ignore[method-assign]
    other.sync.measure_again()
    assert not other.measured.wait(0.2)
    third = new_host("c")
    assert third.next().probes == PROBES


def test_a_host_that_dies_in_its_round_keeps_nobody_waiting(
    store: TCPStore, new_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_channel, "_FOR_A_PEER", timedelta(seconds=0.2))
    new_host("a")
    wait_for(is_reference(store))
    store.set(f"clock/ticket/{store.add('clock/tickets', 1)}", "dead")
    assert new_host("c").next().probes == PROBES


def test_a_host_without_a_reference_ends_with_its_process(store: TCPStore, new_host: Callable[..., Host]) -> None:
    store.add("clock/hosts", 1)  # a reference came, and never answers
    alone = new_host("b")
    wait_for(lambda: alone.channels and alone.channels[0]._waited_for)
    alone.sync.stop()
    assert not alone.sync.is_alive
    assert alone.found == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_ends_in_a_round_lets_the_other_go(
    store: TCPStore, new_host: Callable[..., Host], which: int
) -> None:
    hosts = [new_host("a")]
    wait_for(is_reference(store))
    begun = Event()

    def slowly() -> bool:
        begun.set()
        time.sleep(0.02)
        return True

    hosts[0].sync._may_go_on = slowly  # type: ignore[method-assign]
    hosts.append(new_host("b"))
    assert begun.wait(PATIENCE_S)
    hosts[which].sync.stop()
    assert not hosts[which].sync.is_alive
    if which == 0:
        assert hosts[1].next().probes < PROBES
    else:
        hosts[0].sync._may_go_on = lambda: True  # type: ignore[method-assign]
        assert new_host("c").next().probes == PROBES


def test_a_store_that_cannot_be_reached_ends_the_thread(
    new_host: Callable[..., Host], store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_channel, "_CONNECTING", timedelta(seconds=0.1))
    sync = ClockSync(lambda: StoreChannel(partial(connect, "127.0.0.1", 9), "clock/"), SkewedClock(), "a", print)
    sync.start()
    wait_for(lambda: not sync.is_alive)
    sync.stop()
