"""Iterations that take much longer than the others, and what makes them long."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class LongStep:
    """An iteration of more than LONG_STEP x the median.  ``ranks`` is empty where it is not known who makes it long."""

    iteration: int  # its number, from 0
    time_ns: float  # the median over the ranks
    ranks: tuple[int, ...]  # the others wait for them; all ranks where all lose it alike
    everywhere: bool  # whether these are all ranks with timed steps
    subject: str  # where they lose it: module label, phase or THROUGHOUT; empty where that is not known
    phase: str  # of the place; empty where that is not known
    excess_ns: float  # the median over these ranks of (the time there - the median of their own steps)
    pause: str  # what stopped them, where that has a name: "garbage collection, generation 2", "compilation"


@dataclass(frozen=True)
class Burst:
    """Long iterations with one reason."""

    iterations: tuple[int, ...]  # their numbers, ascending
    of_steps: int  # all timed steps
    ranks: tuple[int, ...]  # that make them long; empty where that is not known
    everywhere: bool  # whether these are all ranks with timed steps
    subject: str  # where they lose the time: module label, phase or THROUGHOUT
    phase: str  # of the place
    excess_ns: float  # the median over the iterations
    pause: str  # what stopped them, where that has a name
