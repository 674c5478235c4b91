"""Where the time of an iteration goes: its phases, and the self times of modules and of their classes."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class PhaseTime:
    """One phase of the iteration, waits included; times are medians over the ranks of each rank's median step."""

    phase: str  # of records.PHASES
    median_ns: float  # in one iteration
    wait_ns: float | None  # the part in which a rank waits in collectives; None where waits are not known
    share: float  # in the sum of all phases
    meaning: str  # what the phase is, in words
    look_at: str  # what to look at where it is long, in words


@dataclass(frozen=True)
class SelfTime:
    """The self time of one module, or of all modules of one class: without the modules inside, in one iteration.

    Waits in collectives are left out where they are known, and are then in ``wait_ns``.  A module has the median over
    the ranks that have it; a class has the mean over all ranks of the sum of its modules, so that classes add up.
    """

    subject: str  # label of the module, or name of the class
    class_name: str  # of the module; the same as subject for a class
    modules: int  # 1, or how many modules have the class
    contains: bool  # whether modules lie inside of it, whose time is not in these figures; False for a class
    forward_ns: float | None  # None where nothing was timed
    backward_ns: float | None  # likewise
    wait_ns: float | None  # in forward and backward
    share: float  # of forward and backward in the median iteration


@dataclass(frozen=True)
class TimeUse:
    """Phases in their order; classes and modules that took time, the longest first."""

    phases: tuple[PhaseTime, ...] = ()  # in their order, those that took time
    classes: tuple[SelfTime, ...] = ()  # the longest first
    modules: tuple[SelfTime, ...] = ()  # the longest first
    has_own_times: bool = False  # whether waits are known and left out of self times
    phases_sum_ns: float = 0.0  # the sum of the phases' medians
    phases_add_up: bool = True  # whether that sum is within 0.5 % of the median iteration
