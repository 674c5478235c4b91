"""What a comparison comes to: one figure decides, iterations where both runs train alike, else the throughput."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.diff.data import FASTER, INSIDE, NOT_COMPARABLE, SLOWER, UNKNOWN, Conclusion, Figure
from distprof.merge.diff.figures import ITERATION_MEAN, ITERATION_MEDIAN, THROUGHPUT


def conclude(figures: Sequence[Figure], *, alike: bool) -> Conclusion:
    """Returns the conclusion; ``alike``: an iteration of both runs trains the same number of samples."""
    if not figures:
        return Conclusion(NOT_COMPARABLE)
    deciding = list(_deciding(figures, alike))
    if not deciding:
        return Conclusion(UNKNOWN)
    chosen = next((one for one in deciding if one.finding not in (INSIDE, UNKNOWN)), deciding[0])
    return Conclusion(_finding(chosen), chosen.name, chosen.change, chosen.low, chosen.high)


def _deciding(figures: Sequence[Figure], alike: bool) -> Iterator[Figure]:
    """Yields the figures that decide, the first one with a change beyond the noise counts."""
    for name in (ITERATION_MEDIAN, ITERATION_MEAN) if alike else (THROUGHPUT,):
        yield from (one for one in figures if one.name == name and one.change is not None)


def _finding(figure: Figure) -> str:
    if figure.finding in (INSIDE, UNKNOWN):
        return figure.finding
    return SLOWER if figure.is_worse else FASTER
