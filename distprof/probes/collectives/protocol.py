"""The interface of what sees collectives: torch's recorder today, its hooks or another library's recorder later.

DDP's own figures (``_get_ddp_logging_data()["avg_backward_compute_time"]``) are no source.  torch samples them in the
first ten iterations of the job, and then in every hundredth one: a window of ten steps has one sample or none, and the
average is that of the warm-up.  Measured with torch 2.13, it was the same from iteration 10 to 99, while backward
became 18 ms longer in iteration 20.  Each iteration could be sampled (``_set_ddp_runtime_logging_sample_rate(1)``),
but then the host waits for events of the device in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from distprof.records import UNKNOWN_THREAD

#: The peer of a collective, and that of a receive from any rank until its sender is known.
NO_PEER, ANY_PEER = -1, -2


@dataclass(slots=True)
class Entry:
    """One collective, send or receive, as :class:`distprof.records.Collectives` describes it.

    ``moment_ns`` is the time of its enqueue on the source's clock: see :attr:`Source.on_wall_clock`.
    """

    moment_ns: int
    group: str
    number: int
    op: str
    input_bytes: int = 0
    output_bytes: int = 0
    peer: int = NO_PEER
    tag: int = 0
    thread: int = UNKNOWN_THREAD
    duration_ns: int = -1
    waited_from_ns: int = 0
    waited_until_ns: int = 0


@dataclass(frozen=True)
class Loss:
    """At most ``entries`` entries between two moments on the source's clock were overwritten before they were read."""

    after_ns: int
    before_ns: int
    entries: int


@dataclass
class Seen:
    """What a source saw between :meth:`Source.open` and :meth:`Source.close`."""

    entries: list[Entry] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    capacity: int = 0  # entries that the source holds; 0: no limit, or not known
    reads: int = 0
    read_ns: int = 0
    timed: bool = False  # whether the device's timing was switched on


class Source(Protocol):
    """Sees the collectives, or the sends and receives, of this process in a window of steps.

    Nothing raises into the job: a source that fails says in :attr:`unseen` why.
    """

    #: What the report calls it.
    name: str
    #: Whether moments are nanoseconds since 1970 on the wall clock; else they are on the monotonic clock.
    on_wall_clock: bool

    @property
    def unseen(self) -> str:
        """Why nothing can be seen, as a sentence; empty if all can."""

    def open(self, began_ns: int) -> None:
        """Begins the window; ``began_ns`` is now, on the source's clock."""

    def step_ended(self) -> None:
        """Runs between two steps; reads what would be overwritten in the next ones."""

    def close(self) -> Seen:
        """Ends the window; returns what was seen in it."""
