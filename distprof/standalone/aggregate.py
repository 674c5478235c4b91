"""Combines the records of one profile: sums of times from several pieces, and averages over several steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from distprof.records import Array, Counts, DeviceWork, OpRow, Ops, Step

Measured = TypeVar("Measured", Counts, Step, Ops, OpRow, DeviceWork)

#: Fields of these records, and of their rows, that are summed over steps; so are all arrays and maps.
_AMOUNTS = {"micro_batches", "samples", "calls", "macs", "flops", "time_ns", "model_macs", "executed_macs"}


def sum_pieces(steps: Sequence[Step]) -> Step:
    """Returns one step for several pieces; it begins with the first."""
    phases = Counter[str]()
    for step in steps:
        phases.update(step.phases_ns)
    if not phases["optimizer"]:
        del phases["optimizer"]  # no optimizer stepped: the time is unknown, not 0
    return replace(
        steps[0],
        duration_ns=sum(phases.values()),
        phases_ns=dict(phases),
        micro_batches=sum(step.micro_batches for step in steps),
        batch_size=next((step.batch_size for step in steps if step.batch_size), 0),
        samples=sum(step.samples for step in steps),
        peak_memory_bytes=max(step.peak_memory_bytes for step in steps),
        calls=_sum([step.calls for step in steps]),
        forward_ns=_sum([step.forward_ns for step in steps]),
        backward_ns=_sum([step.backward_ns for step in steps]),
    )


def average_steps(record: Measured, steps: int) -> Measured:
    """Returns the record of an average step: every amount divided by ``steps``, rounded to an integer."""
    changes: dict[str, Any] = {name: _average(name, value, steps) for name, value in vars(record).items()}
    if "phases_ns" in changes:
        changes["duration_ns"] = sum(changes["phases_ns"].values())
    averages: Measured = replace(record, **changes)
    return averages


def _average(name: str, value: Any, steps: int) -> Any:
    if isinstance(value, np.ndarray):
        return _nearest(value, steps).astype(value.dtype)
    if isinstance(value, dict):
        return {key: _nearest(amount, steps) for key, amount in value.items()}
    if isinstance(value, tuple):
        return tuple(average_steps(row, steps) for row in value)
    return _nearest(value, steps) if name in _AMOUNTS else value


def _nearest(amount: Any, steps: int) -> Any:
    """Returns an integer, or an array of integers, divided and rounded without floating point."""
    return amount // steps + (2 * (amount % steps) >= steps)


def _sum(arrays: Sequence[Array]) -> Array:
    total: Array = np.zeros(max(map(len, arrays)), arrays[0].dtype)
    for array in arrays:
        total[: len(array)] += array
    return total
