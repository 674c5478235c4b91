"""The times of one timed step, and the memory of a rank."""

from __future__ import annotations

from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Array, Bulky, Natural, bulk

#: Phases of one iteration, in the order in which they are shown.  They add up to the iteration.  Forward is time in
#: modules; ``outside`` is time between modules, and between them and the backward.
PHASES = ("data", "forward", "outside", "backward", "optimizer", "evaluation", "other")

TRAINING = "training"  # an iteration that ends with an optimizer step
FORWARD = "forward"  # without an optimizer step: one iteration for each root forward


@dataclass(frozen=True, eq=False)
class Step(Bulky):
    """One timed step.  Module times are *self* times (without children), summed over the iteration's micro-batches.

    ``phases_ns`` has keys from :data:`PHASES` and adds up to ``duration_ns``; a phase that could not be seen (``data``
    without a torch DataLoader) is absent.
    """

    KIND: ClassVar[str] = "step"
    iteration: Natural
    mode: str
    start_wall_ns: Natural
    duration_ns: Natural
    phases_ns: dict[str, int]
    micro_batches: Natural
    batch_size: Natural  # of one micro-batch, 0 where it is unknown
    samples: Natural
    peak_memory_bytes: Natural
    memory_source: str  # "allocator" (CUDA) or "rss"
    calls: Array = bulk("<u4")
    forward_ns: Array = bulk("<i8", rounded=True)
    backward_ns: Array = bulk("<i8", rounded=True)
    batch_found: str = ""  # how batch size was found, or why not
    window: Natural = 0
    processor_wait_ns: Natural = 0  # the thread that trains was ready, but no processor was free; 0 where not seen
    processor_wait_seen: bool = False
    tokens: Natural = 0  # ids in the integer tensor of two dimensions that the model is given first; 0: it gets none


@dataclass(frozen=True)
class WarmupStep:
    """The phases of one warm-up iteration, as in :class:`Step`.  Its times are those of a job that still starts.

    Of several records those with the largest ``restarts`` are valid: after others, iterations have begun again.
    """

    KIND: ClassVar[str] = "warmup_step"
    iteration: Natural
    mode: str
    start_wall_ns: Natural
    duration_ns: Natural
    phases_ns: dict[str, int]
    restarts: Natural = 0


@dataclass(frozen=True)
class Memory:
    """The memory of this rank at the end of an iteration, before anything is freed.

    Local bytes: this rank's shards.  ``optimizer_bytes`` includes the copies of parameters that some
    optimizers update.
    """

    KIND: ClassVar[str] = "memory"
    iteration: Natural
    parameter_bytes: Natural
    gradient_bytes: Natural
    optimizer_bytes: Natural
    window: Natural = 0


@dataclass(frozen=True)
class MemoryUnknown:
    """Replaces :class:`Memory` where a part of it could not be measured."""

    KIND: ClassVar[str] = "memory_unknown"
    iteration: Natural
    reason: str
    window: Natural = 0
