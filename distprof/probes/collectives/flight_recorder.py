"""Reads torch's flight recorder: a ring in this process to which the backends write every collective that they enqueue.

A dump costs some microseconds for each entry in the ring and removes nothing, so a script that reads the ring itself is
not disturbed.  The ring is read once, after the window, and before that when three quarters of it may be new.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from math import prod
from typing import Any

import torch

from distprof.config.flight_recorder import DEFAULT_SIZE, SIZE_VARIABLES
from distprof.errors import said
from distprof.probes.collectives.protocol import Entry, Loss, Seen
from distprof.records import OTHER_THREAD, TRAINING_THREAD, UNKNOWN_THREAD
from distprof.topology.imported import imported
from distprof.topology.process_groups import groups

_C10D = "torch._C._distributed_c10d"
#: The newest name first: until gloo wrote into the ring too, it had the name of nccl.
_DUMPS = ("_dump_fr_trace", "_dump_nccl_trace")
_WRITING_BACKENDS = ("gloo", "nccl", "xccl")
_UNKNOWN_BYTES = -1
#: The bytes of one element, by torch's name of its type in the ring.
_ITEM_BYTES = {
    **dict.fromkeys(("Byte", "Char", "Bool", "Float8_e5m2", "Float8_e4m3fn", "Float8_e5m2fnuz", "Float8_e4m3fnuz"), 1),
    **dict.fromkeys(("Short", "UInt16", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "UInt32", "Float", "ComplexHalf"), 4),
    **dict.fromkeys(("Long", "UInt64", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}


class FlightRecorder:
    """The source of collectives."""

    name = "flight recorder"
    on_wall_clock = True

    def __init__(self, training_thread: int, *, timing: bool = False) -> None:
        """``timing``: switches NCCL's timing on, which stays on until the job ends."""
        self.unseen = ""
        self._timing = timing
        self._training_thread = str(training_thread)
        self._dump, self._status = _function(""), _function("_json")
        self._seen = Seen(capacity=_capacity())
        self._began_ns = 0
        self._last_id = -1  # of the last entry that was read
        self._last_ns = 0  # when the ring was last read, or the window began
        self._ops_at_begin = self._ops_at_read = 0
        self._ops_at_look = 0
        self._busiest = 1  # ops of one step
        self._steps, self._next_look = 0, 1

    def open(self, began_ns: int) -> None:
        self.unseen = self._missing()
        self._began_ns = self._last_ns = began_ns
        if self._timing and not self.unseen:
            self._seen.timed = switch_timing_on()
        self._ops_at_begin = self._ops_at_read = self._ops_at_look = self._enqueued_ops()

    def step_ended(self) -> None:
        self._steps += 1
        if self._steps >= self._next_look and not self.unseen:
            self._look()

    def close(self) -> Seen:
        if not self.unseen:
            self._read()
        return self._seen

    def dump(self) -> bytes:
        """Returns the ring as torch pickles it.  Raises what torch raises."""
        assert self._dump is not None
        pickled: bytes = self._dump(includeCollectives=True, includeStackTraces=False, onlyActive=False)
        return pickled

    def _missing(self) -> str:
        """Returns why the ring has nothing of this process, as a sentence; empty if it has."""
        if self._dump is None:
            return f"torch {torch.__version__} has no flight recorder for this build"
        own = groups()
        if not own:
            return "no process group was initialized"
        if not self._seen.capacity:
            return f"{_size_variable()} switches torch's flight recorder off"
        backends = {group.backend for group in own}
        if not any(known in backend for backend in backends for known in _WRITING_BACKENDS):
            return f"the backend {', '.join(sorted(backends))} does not write into torch's flight recorder"
        return ""

    def _look(self) -> None:
        """Reads the ring if three quarters may be new, and plans the next look: until then steps twice as busy as the
        busiest so far cannot fill it.
        """
        ops, limit = self._enqueued_ops(), self._seen.capacity * 3 // 4
        self._busiest = max(self._busiest, ops - self._ops_at_look)
        if ops - self._ops_at_read >= limit:
            self._read()
            self._ops_at_read = ops
        self._ops_at_look = ops
        self._next_look = self._steps + max(1, (limit - (ops - self._ops_at_read)) // (2 * self._busiest))

    def _enqueued_ops(self) -> int:
        """Returns how many ops all groups have enqueued since the job began, with sends and receives, which gloo does
        not write into the ring; 0 if torch cannot say.
        """
        if self.unseen or self._status is None:
            return 0
        try:
            status: Mapping[str, Any] = json.loads(self._status(False, False)).get("pg_status", {})
            return sum(max(0, int(group["last_enqueued_collective"])) for group in status.values())
        except Exception as error:
            self.unseen = _failure(error)
            return 0

    def _read(self) -> None:
        """Reads the entries that are new since the last read."""
        before, now_ns = time.perf_counter_ns(), time.time_ns()
        try:
            trace = pickle.loads(self.dump())
            new = [entry for entry in trace.get("entries", ()) if entry["record_id"] > self._last_id]
            if new:
                self._note_loss(new)
                self._take(new)
                self._last_ns = now_ns
        except Exception as error:
            self.unseen = _failure(error)
        self._seen.reads += 1
        self._seen.read_ns += time.perf_counter_ns() - before

    def _note_loss(self, new: Sequence[Mapping[str, Any]]) -> None:
        """Counts the entries that were overwritten since the last read, or since the begin of the window."""
        first, lost = new[0], new[0]["record_id"] - self._last_id - 1
        if self._last_id < 0:
            if first["time_created_ns"] <= self._began_ns:
                return
            if self._status is not None:
                lost = min(lost, max(0, self._enqueued_ops() - self._ops_at_begin - len(new)))
        if lost > 0:
            self._seen.losses.append(Loss(self._last_ns, first["time_created_ns"], lost))

    def _take(self, new: Sequence[Mapping[str, Any]]) -> None:
        self._last_id = new[-1]["record_id"]
        self._seen.entries += [
            self._entry_of(found)
            for found in new
            if found["time_created_ns"] >= self._began_ns and not found.get("is_p2p")  # the source of messages has it
        ]

    def _entry_of(self, found: Mapping[str, Any]) -> Entry:
        milliseconds = found.get("duration_ms")
        return Entry(
            moment_ns=found["time_created_ns"],
            group=found["process_group"][0],
            number=found["collective_seq_id"],
            op=op_name(found["profiling_name"]),
            input_bytes=bytes_of(found["input_sizes"], found["input_dtypes"]),
            output_bytes=bytes_of(found["output_sizes"], found["output_dtypes"]),
            thread=self._thread_of(found.get("thread_id")),
            duration_ns=-1 if milliseconds is None else round(milliseconds * 1e6),
        )

    def _thread_of(self, identity: object) -> int:
        if identity is None:
            return UNKNOWN_THREAD
        return TRAINING_THREAD if str(identity) == self._training_thread else OTHER_THREAD


def switch_timing_on() -> bool:
    """Switches timing on in every group of NCCL; returns whether there is one that has it."""
    world = imported("torch.distributed.distributed_c10d", "_world")
    timed = False
    for group, (backend, _) in list(world.pg_map.items()) if world is not None else ():
        if "nccl" in str(backend).lower() and hasattr(group, "_enable_collectives_timing"):
            with suppress(RuntimeError):  # a backend without timing
                group._enable_collectives_timing()
                timed = True
    return timed


@lru_cache(maxsize=256)
def op_name(name: str) -> str:
    """Returns the name of an op without its backend and without torch's suffix for one large tensor."""
    return name.rpartition(":")[2].strip("_").removesuffix("_base")


def bytes_of(sizes: Sequence[Sequence[int]], dtypes: Sequence[str]) -> int:
    """Returns the bytes of tensors; -1 where the size of an element is not known."""
    total = 0
    for shape, dtype in zip(sizes, dtypes, strict=False):
        if dtype not in _ITEM_BYTES:
            return _UNKNOWN_BYTES
        total += _ITEM_BYTES[dtype] * prod(shape)
    return total


def _function(suffix: str) -> Callable[..., bytes] | None:
    """Returns torch's function that dumps the ring in the form of this suffix, by its newest name."""
    c10d = sys.modules.get(_C10D)
    found = (getattr(c10d, name + suffix, None) for name in _DUMPS)
    return next((function for function in found if function is not None), None)


def _size_variable() -> str:
    return next((f"{name}={os.environ[name]}" for name in SIZE_VARIABLES if name in os.environ), "")


def _capacity() -> int:
    """Returns the number of entries of the ring, as torch reads it when the first group is made."""
    text = _size_variable().partition("=")[2]
    return int(text) if text.isdecimal() else DEFAULT_SIZE


def _failure(error: Exception) -> str:
    return f"torch's flight recorder could not be read: {type(error).__name__}: {said(error)}"
