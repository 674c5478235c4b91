"""Decides whether the clocks of several hosts are to be compared, and starts that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from distprof.clock import Clock
from distprof.clock_sync.store_channel import StoreChannel, connect, job_store
from distprof.clock_sync.thread import ClockSync
from distprof.records import ClockOffset

_LOOPBACK = ("localhost", "127.", "::1", "[::1]")


def start_clock_sync(
    run_id: str,
    world_size: int,
    clock: Clock,
    domain: str,
    publish: Callable[[ClockOffset], None],
    environment: Mapping[str, str] = os.environ,
) -> ClockSync | None:
    """Starts the comparison; returns None if all ranks are on one host, or have no store through which to talk."""
    if world_size == 1:
        return None
    store = job_store()
    if store is None or on_one_host(world_size, store[0], environment):
        return None
    prefix = f"distprof/clock/{run_id}/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}/"
    sync = ClockSync(lambda: StoreChannel(partial(connect, *store), prefix), clock, domain, publish)
    try:
        sync.start()
    except RuntimeError:  # there may be no more threads
        return None
    return sync


def on_one_host(world_size: int, store_host: str, environment: Mapping[str, str]) -> bool:
    """Returns whether all ranks are known to be on one host: by their launcher, else by the store's address."""
    local = environment.get("LOCAL_WORLD_SIZE", "")
    if local:
        return local == str(world_size)
    return store_host.startswith(_LOOPBACK)
