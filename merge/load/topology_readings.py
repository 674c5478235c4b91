"""One topology of each rank, from all its readings: at its first forward, and when groups appeared later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from distprof.records import ASSUMED, Topology

Item = TypeVar("Item")


def merge_topologies(readings: Sequence[Topology]) -> Topology | None:
    """Returns the last reading that is more than an assumption, with the meshes, groups, stages and notes of all
    readings; where an earlier one contradicts it, a note names both.
    """
    if not readings:
        return None
    holds = next((one for one in reversed(readings) if one.source != ASSUMED), readings[-1])
    earlier = [one for one in readings if one is not holds]
    return replace(
        holds,
        meshes=_all(one.meshes for one in readings),
        groups=_all(one.groups for one in readings),
        stages=holds.stages or _all(one.stages for one in readings),
        notes=(*_all([*(_contradiction(one, holds) for one in earlier), holds.notes]),),
    )


def _all(parts: Iterable[Iterable[Item]]) -> tuple[Item, ...]:
    """Returns each item once, in the order of the first."""
    return tuple(dict.fromkeys(item for part in parts for item in part))


def _contradiction(earlier: Topology, holds: Topology) -> list[str]:
    axes = [axis for axis in earlier.sizes if axis != "mp" and earlier.sizes[axis] != holds.sizes.get(axis, 1)]
    stated = [axis for axis in axes if _is_stated(earlier, axis)]
    if not stated:
        return []
    first = ", ".join(f"{axis} {earlier.sizes[axis]} ({earlier.sources.get(axis, earlier.source)})" for axis in stated)
    later = ", ".join(f"{axis} {holds.sizes.get(axis, 1)} ({holds.sources.get(axis, holds.source)})" for axis in stated)
    return [f"the parallel axes were read twice and changed: {first} at first, {later} later; the latter is shown"]


def _is_stated(reading: Topology, axis: str) -> bool:
    """Returns whether a source states the axis: dp is often only what the other axes leave over of the world."""
    if reading.sources:
        return reading.sources.get(axis, ASSUMED) != ASSUMED
    return reading.source != ASSUMED and axis != "dp" and reading.sizes[axis] > 1
