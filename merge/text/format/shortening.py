"""Names cut to a width: from the middle, so that a module's model and its own name stay, and the number of its layer.

model.language_model.layers.11.mixture_of_experts.moe  ->  model...layers.11...moe
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_GAP = "..."


def shortened(text: str, width: int, telling: Iterable[int] = ()) -> str:
    """``text`` in at most ``width`` characters; ``telling``: places of parts between its dots to keep if possible."""
    if len(text) <= width:
        return text
    parts = text.split(".")
    last = len(parts) - 1
    numbers = [place for place, part in enumerate(parts) if part.isdecimal() and place < last]
    kept = {last, *numbers}
    while len(_joined(parts, kept)) > width and numbers:  # of many numbers the last ones tell most
        kept.discard(numbers.pop(0))
    if len(_joined(parts, kept)) > width:
        return _cut(text, width)
    wanted = [*telling, *(number - 1 for number in reversed(numbers)), 0, *range(last - 1, 0, -1)]
    for place in wanted:
        if place >= 0 and len(_joined(parts, kept | {place})) <= width:
            kept.add(place)
    return _joined(parts, kept) if len(kept) > 1 else _cut(text, width)


def shortened_apart(texts: Iterable[str], width: int) -> dict[str, str]:
    """By text, itself in at most ``width`` characters; no two alike."""
    short = {text: shortened(text, width) for text in texts}
    for alike in _alike(short):
        telling = _differing(alike)
        short |= {text: shortened(text, width, telling) for text in alike}
    for alike in _alike(short):
        for number, text in enumerate(alike[1:], 2):
            mark = f" #{number}"
            short[text] = f"{_cut(short[text], width - len(mark))}{mark}"
    return short


def _alike(short: dict[str, str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for text, cut in short.items():
        groups.setdefault(cut, []).append(text)
    return [group for group in groups.values() if len(group) > 1]


def _differing(texts: Sequence[str]) -> list[int]:
    """Places at which not all of the texts have the same part."""
    parts = [text.split(".") for text in texts]
    places = range(min(map(len, parts)))
    return [place for place in places if len({own[place] for own in parts}) > 1]


def _joined(parts: Sequence[str], kept: set[int]) -> str:
    """The parts that are kept, with a gap where some are left out."""
    shown, before = "", -1
    for place in sorted(kept):
        between = _GAP if place > before + 1 else "." if shown else ""
        shown, before = f"{shown}{between}{parts[place]}", place
    return shown


def _cut(text: str, width: int) -> str:
    """``text`` without its middle."""
    if len(text) <= width:
        return text
    room = max(0, width - len(_GAP))
    end = (room + 1) // 2
    return f"{text[: room - end]}{_GAP}{text[len(text) - end :]}"
