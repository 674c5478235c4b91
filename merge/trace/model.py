"""The parts of a trace; all times are ns since 1970 on the clock of the reference host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Value = int | float | str


@dataclass(frozen=True)
class Slice:
    """Something that lasted from ``start_ns`` to ``end_ns``, or happened at one moment if these are equal."""

    name: str
    start_ns: int
    end_ns: int
    args: Mapping[str, Value] = field(default_factory=dict)
    flows: tuple[int, ...] = ()  # slices with one of these numbers in common are joined by arrows, in order of time


@dataclass(frozen=True)
class Track:
    """Slices that overlap stand on several lanes of one name; if the track ``nests``, one inside another does not."""

    name: str
    slices: tuple[Slice, ...]
    nests: bool = False

    @property
    def lanes(self) -> list[list[Slice]]:
        """Returns the slices on lanes, each in order and without overlap."""
        return nested_lanes(self.slices) if self.nests else lanes(self.slices)


@dataclass(frozen=True)
class Counter:
    """A value over time."""

    name: str
    unit: str
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RankTrace:
    """All that is drawn of one rank."""

    rank: int
    name: str
    tracks: tuple[Track, ...]
    counters: tuple[Counter, ...]
    left_out: tuple[str, ...] = ()  # what could not be drawn, and why


def lanes(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Returns ``slices`` on as few lanes as keep them apart, each lane in order of time."""
    found: list[list[Slice]] = []
    for one in sorted(slices, key=lambda one: (one.start_ns, one.end_ns)):
        free = next((lane for lane in found if lane[-1].end_ns <= one.start_ns), None)
        if free is None:
            found.append([one])
        else:
            free.append(one)
    return found


def nested_lanes(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Returns ``slices`` on as few lanes as keep those apart that overlap without one being inside the other."""
    found: list[list[Slice]] = []
    open_ends: list[list[int]] = []  # by lane: the ends of the slices in which the next one may be
    for one in sorted(slices, key=lambda one: (one.start_ns, -one.end_ns)):
        for ends in open_ends:
            while ends and ends[-1] <= one.start_ns:
                ends.pop()
        free = next((at for at, ends in enumerate(open_ends) if not ends or one.end_ns <= ends[-1]), len(found))
        if free == len(found):
            found.append([])
            open_ends.append([])
        found[free].append(one)
        open_ends[free].append(one.end_ns)
    return found
