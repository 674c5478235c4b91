"""What the phases of an iteration are called in the report."""

from __future__ import annotations

_TITLES = {"data": "data wait", "outside": "outside modules"}


def phase_title(phase: str) -> str:
    """A phase of records.PHASES in the reader's words."""
    return _TITLES.get(phase, phase)
