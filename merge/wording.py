"""Phrases that several sentences of the report share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from distprof.rank_names import number_spans, rank_names

_SHOWN = 3
_SERIES_WIDTH = 72


def pluralise(count: int, noun: str) -> str:
    """Returns a count with its noun: ``1 rank``, ``2 ranks``, ``1,024 ranks``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def number_series(numbers: Sequence[int], width: int = _SERIES_WIDTH) -> str:
    """Returns ``0-7``, or ``0, 8, ..., 504`` for numbers at equal distances; other lists that are too long are cut."""
    distances = {after - before for before, after in pairwise(numbers)}
    if len(numbers) > 3 and len(distances) == 1 and distances != {1}:
        return f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
    text = number_spans(numbers)
    return text if len(text) <= width else f"{text[:width].rpartition(', ')[0]}, ..."


def join_words(names: Sequence[str]) -> str:
    """Returns the first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown


_TITLES = {"data": "data wait", "outside": "outside modules"}


def phase_title(phase: str) -> str:
    """Returns the name of a phase of records.PHASES in the report."""
    return _TITLES.get(phase, phase)


def place_name(subject: str, phase: str) -> str:
    """``forward of blocks.3``, or a phase in the reader's words."""
    return phase_title(phase) if subject == phase else f"{phase} of {subject}"


def group_name(kind: str, name: str, ranks: Iterable[int]) -> str:
    """``host node2``, or ``the tp group of ranks 4-7 (dp 1, pp 0)``: a group of ranks that is judged as a whole."""
    if kind == "host":
        return f"host {name}"
    return f"the {kind} group of {rank_names(ranks)}{f' ({name})' if name else ''}"


def group_kinds(kind: str) -> str:
    """Returns what the other groups of this kind are called: ``hosts``, ``tp groups``."""
    return "hosts" if kind == "host" else f"{kind} groups"
