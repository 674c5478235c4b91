"""Guesses what a user meant by a misspelt word."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_WORD = 100  # a comparison takes the square of it
_LEAST_ALIKE = 0.7  # difflib's ratio: lower ones find words that are unlike


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Returns a question with the known word, behind ``prefix``, that is most like ``word``; empty if none is."""
    import difflib  # takes a hundredth of the start of a command, and few words are misspelt

    alike = difflib.get_close_matches(word[:_LONGEST_WORD], sorted(known), 1, _LEAST_ALIKE)
    return f"did you mean {prefix + alike[0]!r}?" if alike else ""
