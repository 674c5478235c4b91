"""What one timed step took, and what a rank held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distprof.records.fields import Array, Bulky, Natural, bulk

#: Phases of one iteration, in the order in which they are shown.  They add up to the iteration.  Forward is time in
#: modules; ``outside`` is what stands between them, and between them and the backward.
PHASES = ("data", "forward", "outside", "backward", "optimizer", "evaluation", "other")

TRAINING = "training"  # an iteration that an optimizer step closes
FORWARD = "forward"  # no optimizer has stepped: one iteration a root forward

#: Owns the turns that are of no module.
NO_ROW = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class Step(Bulky):
    """One timed step.  Module times are *self* times (without children), summed over the iteration's micro-batches.

    ``phases_ns`` has keys from :data:`PHASES` and adds up to ``duration_ns``; a phase that could not be seen (``data``
    without a torch DataLoader) is absent.

    A short step is written as it was stamped, because adding up would be a good part of what recording it costs:
    ``owners`` has for each turn a row, ``~row`` where it is backward, or NO_ROW; ``stamps`` the low 32 bits of the
    moment at which each began, in ns, and of the end.  Then the times by row are left out, and readers add them up.
    """

    KIND: ClassVar[str] = "step"
    iteration: Natural
    mode: str
    start_wall_ns: Natural
    duration_ns: Natural
    phases_ns: dict[str, int]
    micro_batches: Natural
    batch_size: Natural  # of one micro-batch, 0 where it cannot be told
    samples: Natural
    peak_memory_bytes: Natural
    memory_source: str  # "allocator" (CUDA) or "rss"
    calls: Array = bulk("<u4")
    forward_ns: Array = bulk("<i8")
    backward_ns: Array = bulk("<i8")
    owners: Array = bulk("<i4")
    stamps: Array = bulk("<u4")
    batch_found: str = ""  # how batch size was found, or why not


@dataclass(frozen=True)
class Memory:
    """What training holds in this rank's memory when an iteration has ended and nothing has been cleared yet.

    Local bytes: this rank's shards.  ``optimizer_bytes`` has the state, and the copies of parameters that some
    optimizers step in.
    """

    KIND: ClassVar[str] = "memory"
    iteration: Natural
    parameter_bytes: Natural
    gradient_bytes: Natural
    optimizer_bytes: Natural


@dataclass(frozen=True)
class MemoryUnknown:
    """In place of :class:`Memory`, where something that is held could not be measured."""

    KIND: ClassVar[str] = "memory_unknown"
    iteration: Natural
    reason: str
