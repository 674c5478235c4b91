"""The clocks of the hosts, and how exactly times of different hosts compare."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class HostClockRow:
    """The clocks of one host against those of the reference host."""

    host: str  # name of the machine
    ranks: tuple[int, ...]  # its recorded ranks, ascending
    ahead_ns: int | None  # its wall clock minus the reference's; None where that was not measured
    drift_ppm: float | None  # how much faster it runs; None where that was measured once at most
    drift_bound_ppm: float | None  # the largest error of that
    bound_ns: int | None  # the largest error of a time of its timed steps on the reference's clock, as measured
    measurements: int  # how often it was compared with the reference
    shift_ns: int = 0  # what was added to its times, because its ranks' collectives contradict its clock


@dataclass(frozen=True)
class Clocks:
    """How times of different hosts compare; on one host, all ranks read the same clock."""

    reference: str  # the host whose clock all times are on
    hosts: tuple[HostClockRow, ...]  # the reference first
    bound_ns: int | None  # the largest error of a time between two hosts; 0 on one host, None where it is not known
    unknown: str = ""  # why it is not known
    shifted: bool = False  # whether times were shifted
    shift_error_ns: int | None = None  # the largest error after that; None where none were, or it is not known

    @property
    def error_ns(self) -> int | None:
        """The largest error of a time between two hosts in the report; None where it is not known."""
        return self.shift_error_ns if self.shifted else self.bound_ns
