"""A made-up node: its status, and a store that counts what is written into it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from distprof.launcher.daemon.status import NodeStatus, RankStatus
from distprof.launcher.store.tcp_store import TcpStore


@dataclass
class Traffic:
    """Calls by method, and the sizes of the values that were set."""

    calls: Counter[str] = field(default_factory=Counter)
    set_bytes: list[int] = field(default_factory=list)


class CountedStore:
    """A store whose calls are counted."""

    def __init__(self, store: TcpStore, traffic: Traffic) -> None:
        self._store = store
        self._traffic = traffic

    def set(self, key: str, value: bytes) -> None:
        self._traffic.calls["set"] += 1
        self._traffic.set_bytes.append(len(value))
        self._store.set(key, value)

    def peek(self, key: str) -> bytes | None:
        self._traffic.calls["peek"] += 1
        return self._store.peek(key)

    def add(self, key: str, amount: int) -> int:
        self._traffic.calls["add"] += 1
        return self._store.add(key, amount)

    def delete(self, key: str) -> None:
        self._traffic.calls["delete"] += 1
        self._store.delete(key)


def status(node: int, ranks: int, iteration: int) -> NodeStatus:
    """Returns the status of a node in a timed window, in which a status is longest; the values differ by rank."""
    rows = tuple(_rank(node * ranks + local, local, f"node-{node:04d}", iteration) for local in range(ranks))
    return NodeStatus(f"{node:016x}", f"node-{node:04d}", time.time_ns(), 1, rows)


def _rank(rank: int, local: int, host: str, iteration: int) -> RankStatus:
    return RankStatus(
        rank=rank,
        world_size=4096,
        local_rank=local,
        pid=100_000 + rank * 7,
        host=host,
        place=f"dp {rank // 8}, tp {local}, ep {rank % 4}",
        device="cuda",
        state="timed",
        iteration=iteration,
        age_s=round(0.1 + rank * 0.0137 % 0.4, 3),
        limit_s=60.0,
        iteration_ns=412_345_678 + rank * 991,
        median_ns=411_222_333 + rank * 877,
        p99_ns=455_666_777 + rank * 613,
        window=3,
        window_end=iteration + 10,
        phase="forward",
        module=f"model.layers.{rank % 61}.mlp.experts.{rank % 8}.down_proj",
        activity_age_s=round(rank * 0.0071 % 0.5, 3),
        data_ns=1_234_567 + rank * 331,
        timed_ns=413_456_789 + rank * 499,
        samples=32,
        peak_bytes=61_234_567_890 + rank * 104_729,
        resident_bytes=7_654_321_098 + rank * 1_299_709,
        error="",
        request=1,
        request_window=3,
        refusal="",
        slowest_in=rank % 7,
        sampled=50,
        wait_share=round(rank * 0.0171 % 1, 3),
        collective_group="mesh_ep",
        collective_op="all_to_all",
        collective_number=61 * iteration + rank % 61,
        collective_runs=rank % 3 == 0,
    )
