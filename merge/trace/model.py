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
    """Slices that overlap stand on several lanes of one name."""

    name: str
    slices: tuple[Slice, ...]

    @property
    def lanes(self) -> list[list[Slice]]:
        """Returns the slices on lanes, each in order and without overlap."""
        return lanes(self.slices)


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
