"""The bulk arrays of a :class:`distprof.records.Collectives` record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distprof.probes.collectives.protocol import Entry
from distprof.records import Array

_INT32 = ("peer", "tag", "thread")
_INT64 = ("number", "input_bytes", "output_bytes")
_WAITS = ("waited_from_ns", "waited_until_ns")


def columns_of(entries: Sequence[Entry], moments_ns: Array) -> dict[str, Any]:
    """Returns the fields of the record that has these entries, which were enqueued at ``moments_ns``."""
    group_names, group = _numbered([entry.group for entry in entries])
    ops, op = _numbered([entry.op for entry in entries])
    fields: dict[str, Any] = {"group_names": group_names, "group": group, "ops": ops, "op": op}
    fields["enqueued_ns"] = moments_ns
    for names, dtype in ((_INT32, "<i4"), (_INT64, "<i8")):
        fields |= {name: np.array([getattr(entry, name) for entry in entries], dtype) for name in names}
    if any(entry.duration_ns >= 0 for entry in entries):
        fields["duration_ns"] = np.array([entry.duration_ns for entry in entries], "<i8")
    if any(entry.waited_from_ns for entry in entries):
        fields |= {name: np.array([getattr(entry, name) for entry in entries], "<i8") for name in _WAITS}
    return fields


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], Array]:
    """Returns the different names in the order of their first use, and the place of each name among them."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(places), np.array([places[name] for name in names], "<i4")
