"""One iteration of some ranks on one clock."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class Span:
    """Something that lasted from ``start_ns`` to ``end_ns``, in ns since the first rank began the iteration."""

    name: str  # of what lasted
    start_ns: int  # since the first rank began the iteration
    end_ns: int  # likewise


@dataclass(frozen=True)
class RankTimeline:
    """What one rank did in the iteration; spans of a kind are in order of time."""

    rank: int  # its number
    phases: tuple[Span, ...]  # ``name`` is one of records.PHASES
    modules: tuple[Span, ...]  # turns of at least 1 ms; "(backward)" after the label, "(outside modules)" in no module
    collectives: tuple[Span, ...]  # from the rank's own entry until the last member entered
    waits: tuple[Span, ...]  # parts of the turns in which the rank waits; ``name`` says for whom, and in what
    pauses: tuple[Span, ...]  # garbage collections, compilations


@dataclass(frozen=True)
class StepTimeline:
    """The iteration whose length is nearest to the median, of all ranks or of some of many.

    ``ranks`` is empty where no timeline was recorded.  Moments of other hosts are exact to ``bound_ns``.
    """

    iteration: int = 0  # its number, from 0
    ranks: tuple[RankTimeline, ...] = ()  # ascending
    left_out: int = 0  # ranks that have a timeline as well
    bound_ns: float | None = 0.0  # None where the clocks of two hosts were not compared
