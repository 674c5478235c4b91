"""Shortens names of modules to a width, from the middle: the model, the layer's number and the last name are kept.

model.language_model.layers.11.mixture_of_experts.moe  ->  model...layers.11...moe
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

_GAP = "..."


def shortened(text: str, width: int, distinctive: Iterable[int] = ()) -> str:
    """Returns ``text`` in at most ``width`` characters; ``distinctive`` are places of parts to keep if possible."""
    if len(text) <= width:
        return text
    parts = text.split(".")
    last = len(parts) - 1
    numbers = [place for place, part in enumerate(parts) if part.isdecimal() and place < last]
    kept = {last, *numbers}
    while len(_joined(parts, kept)) > width and numbers:  # the last numbers are the most important ones
        kept.discard(numbers.pop(0))
    if len(_joined(parts, kept)) > width:
        return _cut(text, width)
    wanted = [*distinctive, *(number - 1 for number in reversed(numbers)), 0, *range(last - 1, 0, -1)]
    for place in wanted:
        if place >= 0 and len(_joined(parts, kept | {place})) <= width:
            kept.add(place)
    return _joined(parts, kept) if len(kept) > 1 else _cut(text, width)


def shortened_apart(texts: Iterable[str], width: int) -> dict[str, str]:
    """Returns for each text a short form of at most ``width`` characters; no two short forms are equal."""
    short = {text: shortened(text, width) for text in texts}
    for texts_of_one in _equal_forms(short):
        distinctive = _differing(texts_of_one)
        short |= {text: shortened(text, width, distinctive) for text in texts_of_one}
    taken = set(short.values())
    for texts_of_one in _equal_forms(short):
        for text in texts_of_one[1:]:
            short[text] = next(form for form in _numbered(short[text], width) if form not in taken)
            taken.add(short[text])
    return short


def _numbered(form: str, width: int) -> Iterator[str]:
    """Yields forms with a number, from 2 on."""
    for number in count(2):
        mark = f" #{number}"
        yield f"{_cut(form, width - len(mark))}{mark}"


def _equal_forms(short: dict[str, str]) -> list[list[str]]:
    """Returns the groups of texts that have the same short form."""
    groups: dict[str, list[str]] = {}
    for text, cut in short.items():
        groups.setdefault(cut, []).append(text)
    return [group for group in groups.values() if len(group) > 1]


def _differing(texts: Sequence[str]) -> list[int]:
    """Returns the places at which the texts have different parts."""
    parts = [text.split(".") for text in texts]
    places = range(min(map(len, parts)))
    return [place for place in places if len({own[place] for own in parts}) > 1]


def _joined(parts: Sequence[str], kept: set[int]) -> str:
    """Returns the parts that are kept, with a gap where others are left out."""
    shown, before = "", -1
    for place in sorted(kept):
        between = _GAP if place > before + 1 else "." if shown else ""
        shown, before = f"{shown}{between}{parts[place]}", place
    return shown


def _cut(text: str, width: int) -> str:
    """Returns ``text`` without its middle."""
    if len(text) <= width:
        return text
    room = max(0, width - len(_GAP))
    end = (room + 1) // 2
    return f"{text[: room - end]}{_GAP}{text[len(text) - end :]}"
