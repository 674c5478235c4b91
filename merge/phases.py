"""What the phases of an iteration are called in the report."""

from __future__ import annotations


def phase_title(phase: str) -> str:
    """A phase of records.PHASES in the reader's words."""
    return "data wait" if phase == "data" else phase
