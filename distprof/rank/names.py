"""Names of ranks in messages."""

from __future__ import annotations

from collections.abc import Iterable


def spans(ranks: Iterable[int]) -> str:
    """Returns ``rank 3`` or ``ranks 0-3, 7``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"rank {text}" if text.isdecimal() else f"ranks {text}"
