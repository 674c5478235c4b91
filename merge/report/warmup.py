"""The warm-up iterations, before the first window."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class WarmupIteration:
    """One iteration before the window, as the mean over the ranks that saw it; no other figure includes it.

    The job still starts in it: caches are cold, memory is allocated, code may be compiled.  Waits in collectives are
    included.
    """

    iteration: int  # its number, from 0
    ranks: int  # how many saw it
    duration_ns: float  # wall time, the sum of the phases; the first iteration begins with the first call of a model
    longest_ns: float  # wall time on the rank where it took longest
    phases_ns: dict[str, float]  # by phase of records.PHASES, those that any rank saw
