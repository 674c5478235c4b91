"""Clocks are compared only where there may be several hosts, and a store through which they can talk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch.distributed as dist
from support.simulated.clock import FakeClock
from torch._C._distributed_c10d import HashStore, TCPStore

from distprof.clock import clock_domain
from distprof.clock_sync.start import on_one_host, start_clock_sync
from distprof.clock_sync.store_channel import job_store
from distprof.records import ClockOffset


@pytest.fixture
def group() -> Iterator[TCPStore]:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    dist.init_process_group("gloo", rank=0, world_size=1, store=store)
    yield store
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("world_size", "store_host", "environment", "expected"),
    [
        (8, "node0", {"LOCAL_WORLD_SIZE": "8"}, True),
        (8, "node0", {"LOCAL_WORLD_SIZE": "4"}, False),
        (8, "127.0.0.1", {"LOCAL_WORLD_SIZE": "4"}, False),  # two launchers may be on one host, or in two containers
        (8, "localhost", {}, True),
        (8, "127.0.1.1", {}, True),
        (8, "node0", {}, False),
    ],
)
def test_one_host(world_size: int, store_host: str, environment: dict[str, str], expected: bool) -> None:
    assert on_one_host(world_size, store_host, environment) is expected


def test_the_store_of_the_job_is_found_below_its_prefixes(group: TCPStore) -> None:
    assert job_store() == ("127.0.0.1", group.port)


def test_without_a_process_group_there_is_no_store() -> None:
    assert job_store() is None


def test_a_store_in_memory_has_no_address() -> None:
    dist.init_process_group("gloo", rank=0, world_size=1, store=HashStore())
    try:
        assert job_store() is None
    finally:
        dist.destroy_process_group()


def test_nothing_starts_on_one_host(group: TCPStore) -> None:
    found: list[ClockOffset] = []
    before = group.num_keys()
    for world_size, local in ((1, "1"), (2, "2")):
        local_size = {"LOCAL_WORLD_SIZE": local}
        assert start_clock_sync("r", world_size, FakeClock(), "a", found.append, local_size) is None
    assert group.num_keys() == before


def test_several_launchers_start_it(group: TCPStore) -> None:
    found: list[ClockOffset] = []
    sync = start_clock_sync("r", 2, FakeClock(), "a", found.append, {"LOCAL_WORLD_SIZE": "1"})
    assert sync is not None
    sync.stop()
    assert not sync.is_alive


def test_processes_of_one_machine_share_their_domain() -> None:
    assert clock_domain() == clock_domain() != ""
