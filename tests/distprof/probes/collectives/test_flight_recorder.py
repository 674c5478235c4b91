"""Tests of the reader of torch's flight recorder, with dumps that the test makes; test_jobs reads real ones."""

from __future__ import annotations

import json
import pickle
from threading import get_ident
from typing import Any

import pytest
import torch

from distprof.config.flight_recorder import SIZE_VARIABLES
from distprof.probes.collectives import flight_recorder
from distprof.probes.collectives.flight_recorder import FlightRecorder, bytes_of, op_name
from distprof.records import OTHER_THREAD, TRAINING_THREAD, UNKNOWN_THREAD
from distprof.topology.process_groups import SeenGroup

SECOND = 1_000_000_000


def test_ops_are_named_without_backend_and_suffix() -> None:
    assert op_name("gloo:all_reduce") == "all_reduce"
    assert op_name("nccl:_all_gather_base") == "all_gather"
    assert op_name("nccl:_reduce_scatter_base") == "reduce_scatter"
    assert op_name("nccl:all_reduce_barrier") == "all_reduce_barrier"


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
)
def test_bytes_are_those_of_the_tensors(dtype: torch.dtype) -> None:
    name = torch.zeros(0, dtype=dtype).type().rpartition(".")[2].removesuffix("Tensor")
    assert bytes_of([[2, 3], [5], []], [name] * 3) == 12 * torch.zeros((), dtype=dtype).element_size()
    assert bytes_of([[2], [2]], ["Float", "a new one"]) == -1
    assert bytes_of([], []) == 0


def entry(record: int, seconds: int, **more: Any) -> dict[str, Any]:
    return {
        **{"record_id": record, "process_group": ("0", "default_pg"), "collective_seq_id": record + 1},
        **{"profiling_name": "gloo:all_reduce", "time_created_ns": seconds * SECOND, "thread_id": str(get_ident())},
        **{"input_sizes": [[2]], "input_dtypes": ["Float"], "output_sizes": [[2]], "output_dtypes": ["Float"]},
        **{"is_p2p": False, **more},
    }


class Ring:
    """What torch's two functions give."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, backend: str = "gloo") -> None:
        self.entries: list[dict[str, Any]] = []
        self.ops = 0
        self.broken = False
        functions = {"": self.dump, "_json": self.status}
        monkeypatch.setattr(flight_recorder, "_function", functions.get)
        monkeypatch.setattr(flight_recorder, "groups", lambda: [SeenGroup("0", "default_pg", backend, (0, 1))])

    def dump(self, **how: bool) -> bytes:
        assert how == {"includeCollectives": True, "includeStackTraces": False, "onlyActive": False}
        if self.broken:
            raise RuntimeError("no ring")
        return pickle.dumps({"version": "2.10", "entries": self.entries})

    def status(self, collectives: bool, active: bool) -> bytes:
        assert not collectives
        return json.dumps({"pg_status": {"0": {"last_enqueued_collective": str(self.ops)}}}).encode()


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    for name in SIZE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Ring(monkeypatch)


def test_entries_since_the_begin_of_the_window_are_taken(ring: Ring) -> None:
    source = FlightRecorder(get_ident())
    source.open(10 * SECOND)
    ring.entries = [
        *(entry(0, 9), entry(1, 11), entry(2, 12, thread_id="5", duration_ms=1.5), entry(3, 12, is_p2p=True)),
        {**entry(4, 13), "thread_id": None},
    ]
    seen = source.close()
    assert [found.number for found in seen.entries] == [2, 3, 5]
    assert [found.thread for found in seen.entries] == [TRAINING_THREAD, OTHER_THREAD, UNKNOWN_THREAD]
    assert [found.duration_ns for found in seen.entries] == [-1, 1_500_000, -1]
    assert (seen.entries[0].input_bytes, seen.entries[0].output_bytes, seen.entries[0].op) == (8, 8, "all_reduce")
    assert (seen.losses, seen.reads, seen.capacity, source.unseen) == ([], 1, 2_000, "")


def test_the_ring_is_read_before_it_is_full(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "100")
    source = FlightRecorder(get_ident())
    source.open(0)
    for step in range(50):
        first = len(ring.entries) and ring.entries[-1]["record_id"] + 1
        ring.entries = [*ring.entries, *(entry(first + n, step + 1) for n in range(10))][-100:]
        ring.ops += 10
        source.step_ended()
    seen = source.close()
    assert [found.number for found in seen.entries] == list(range(1, 501)) and seen.losses == []
    assert 5 <= seen.reads <= 10


def test_what_was_overwritten_is_counted(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first read by the ops that were enqueued since the window began, later by the numbers of entries."""
    monkeypatch.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "4")
    ring.ops = 90
    source = FlightRecorder(get_ident())
    source.open(10 * SECOND)
    ring.entries, ring.ops = [entry(number, 20) for number in (96, 97, 98, 99)], 100
    source.step_ended()
    ring.entries, ring.ops = [entry(number, 30) for number in (105, 106, 107, 108)], 109
    seen = source.close()
    assert [loss.entries for loss in seen.losses] == [6, 5]
    assert seen.losses[0].after_ns == 10 * SECOND and seen.losses[0].before_ns == 20 * SECOND
    assert seen.capacity == 4 and len(seen.entries) == 8


def test_a_ring_that_cannot_be_read_is_told_and_raises_nothing(ring: Ring) -> None:
    source = FlightRecorder(get_ident())
    source.open(0)
    ring.broken = True
    assert source.close().entries == []
    assert source.unseen == "torch's flight recorder could not be read: RuntimeError: no ring"


def test_why_there_is_nothing_to_read_is_told(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason() -> str:
        source = FlightRecorder(get_ident())
        source.open(0)
        source.step_ended()
        assert source.close().reads == 0
        return source.unseen

    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "0")
    assert reason() == "TORCH_FR_BUFFER_SIZE=0 switches torch's flight recorder off"
    monkeypatch.delenv("TORCH_FR_BUFFER_SIZE")
    Ring(monkeypatch, "mpi")
    assert reason() == "the backend mpi does not write into torch's flight recorder"
    monkeypatch.setattr(flight_recorder, "groups", list)
    assert reason() == "no process group was initialized"
    monkeypatch.setattr(flight_recorder, "_function", lambda suffix: None)
    assert reason() == f"torch {torch.__version__} has no flight recorder for this build"


class Group:
    timed = 0

    def _enable_collectives_timing(self) -> None:
        self.timed += 1


def test_timing_is_switched_on_for_nccl_only_and_only_if_asked(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    class World:
        pg_map = {Group(): ("nccl", None), Group(): ("gloo", None)}  # noqa: RUF012

    monkeypatch.setattr(flight_recorder, "imported", lambda module, attribute: World)
    for timing in (False, True):
        source = FlightRecorder(get_ident(), timing=timing)
        source.open(0)
        assert source.close().timed == timing
        assert [group.timed for group in World.pg_map] == [int(timing), 0]
