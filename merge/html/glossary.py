"""The words that the page explains: those of docs/GLOSSARY.md, which ``make docs`` copies beside this module."""

from __future__ import annotations

import json
from importlib.resources import files

from distprof.plain import dataclass


@dataclass(frozen=True)
class Term:
    """A word, what it means, and the part of the glossary that has it."""

    word: str
    meaning: str
    part: str


def terms() -> list[Term]:
    """Returns the words in the order of the glossary."""
    text = (files("distprof.merge.html") / "assets" / "glossary.json").read_text(encoding="utf-8")
    return [Term(**entry) for entry in json.loads(text)]
