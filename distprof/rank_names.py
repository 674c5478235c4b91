"""Names of ranks in messages, and lists of numbers with their runs folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

#: A list of more runs is cut, or a sentence about every eighth of 16,384 ranks would fill a screen.
_MOST_RUNS = 16
_FIRST_RUNS = 6


def number_spans(numbers: Iterable[int]) -> str:
    """Returns ``0-2, 5`` for 0, 1, 2 and 5: ascending, each number once."""
    return ", ".join(_runs(sorted(set(numbers))))


def few_spans(numbers: Iterable[int], noun: str = "rank") -> str:
    """Returns the same; of a list that would be long the begin, the last number and how many: ``3, 11, ..., 4091 (512
    ranks)``.
    """
    ordered = sorted(set(numbers))
    runs = list(_runs(ordered))
    if len(runs) <= _MOST_RUNS:
        return ", ".join(runs)
    is_series = len({after - before for before, after in pairwise(ordered)}) == 1
    begin = ", ".join(runs[: 2 if is_series else _FIRST_RUNS])
    return f"{begin}, ..., {ordered[-1]} ({len(ordered):,} {noun}s)"


def rank_names(ranks: Iterable[int]) -> str:
    """Returns ``rank 3``, or ``ranks 0-2, 5``; of a long list as :func:`few_spans` does."""
    ranks = set(ranks)
    return f"rank{'s' if len(ranks) > 1 else ''} {few_spans(ranks)}"


def _runs(ordered: Sequence[int]) -> Iterable[str]:
    """Yields ``0-2`` and ``5`` of 0, 1, 2 and 5."""
    for _, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}"
