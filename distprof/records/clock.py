"""What one host's clock differs from another's."""

from __future__ import annotations

from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Natural


@dataclass(frozen=True)
class ClockOffset:
    """One measurement of this host's monotonic clock against that of the reference host.

    At ``mono_ns`` of the own clock, the reference's clock showed ``mono_ns + offset_ns``, with an error of at most
    ``bound_ns``: half the round trip of the fastest of ``probes`` exchanges of messages.
    """

    KIND: ClassVar[str] = "clock_offset"
    reference: str  # the ``clock_domain`` of the reference's ranks
    mono_ns: Natural
    offset_ns: int
    bound_ns: Natural
    probes: Natural
