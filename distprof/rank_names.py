"""Names of ranks in messages, and lists of numbers with their runs folded."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby


def number_spans(numbers: Iterable[int]) -> str:
    """Returns ``0-2, 5`` for 0, 1, 2 and 5: ascending, each number once."""
    found = []
    for _, run in groupby(enumerate(sorted(set(numbers))), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        found.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ", ".join(found)


def rank_names(ranks: Iterable[int]) -> str:
    """Returns ``rank 3``, or ``ranks 0-2, 5``."""
    ranks = set(ranks)
    return f"rank{'s' if len(ranks) > 1 else ''} {number_spans(ranks)}"
