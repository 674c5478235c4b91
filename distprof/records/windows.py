"""What is kept of a window whose other records were removed."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Amount, Natural


@dataclass(frozen=True)
class WindowSummary:
    """One window in place of its records, which were removed so that the shard of a long job stays small.

    Sums are those of the timed iterations that are used: ``iterations`` of them, from number ``start`` on.
    ``samples``, ``tokens`` and ``macs`` are 0 where they were not known; ``macs`` are those of the model in the counted
    iteration.  ``median_ns``, the median duration, is 0 where it is not known.
    """

    KIND: ClassVar[str] = "window_summary"
    window: Natural
    mode: str
    start: Natural
    iterations: Natural
    duration_ns: Natural
    longest_ns: Natural = 0
    phases_ns: dict[str, int] = field(default_factory=dict)
    samples: Natural = 0
    tokens: Natural = 0
    peak_memory_bytes: Natural = 0
    macs: Amount = 0
    median_ns: Natural = 0
