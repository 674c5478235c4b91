"""The comparison as text, 80 columns wide: the answer first, then the figures, the places, and the rest."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.diff.data import Diff, Figure, PlaceChange, WorkChange
from distprof.merge.diff.sentences import (
    common_sentence,
    headline,
    judgement,
    noise_sentence,
    percent,
    place_sentences,
    values,
    verdict_sentences,
)
from distprof.merge.quantities import NOT_AVAILABLE, byte_size, duration, plain, quantity
from distprof.merge.text.format.lines import join_blocks, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened, shortened_apart
from distprof.merge.wording import phase_title, pluralise

_WIDTH = 80
_NAME = 24
_PASSES = {"forward": "fwd", "backward": "bwd"}
_SHOWN = 10


def render(diff: Diff) -> str:
    """Returns the whole text."""
    blocks = (
        _answer(diff),
        _setup(diff),
        _figures(diff),
        _places(diff),
        _collectives(diff),
        _work(diff),
    )
    return join_blocks(list(block) for block in blocks)


def _answer(diff: Diff) -> Iterator[str]:
    """Yields the conclusions: what is worse or better beyond the noise, and which places are."""
    yield from _folded(headline(diff))
    if diff.why_not:
        return
    for sentence in (
        noise_sentence(diff),
        *place_sentences(diff, _SHOWN),
        common_sentence(diff),
        *verdict_sentences(diff, _SHOWN),
    ):
        if sentence:
            yield from _folded(sentence)


def _setup(diff: Diff) -> Iterator[str]:
    yield from _folded(f"first:  {one_line(diff.first)}")
    yield from _folded(f"second: {one_line(diff.second)}")
    for one in diff.setup:
        effect = f": {one.effect}" if one.effect else ""
        yield from _folded(one_line(f"differs: {one.what}, {one.first} and {one.second}{effect}"))
    for note in diff.notes:
        yield from _folded(one_line(f"note: {note}"))


def _figures(diff: Diff) -> Iterator[str]:
    if not diff.figures:
        return
    yield from table(
        ["figure", "first", "second", "change", "bounds", ""],
        [[one.name, *values(one), percent(one.change), _bounds(one), judgement(one)] for one in diff.figures],
        left=["figure", ""],
    )
    for why in dict.fromkeys(one.why for one in diff.figures if one.why):
        yield from _folded(f"note: {why}")


def _places(diff: Diff) -> Iterator[str]:
    changes = diff.places.changes
    if not changes:
        return
    title = "own time" if diff.places.without_waits else "self time"
    shown = changes[:_SHOWN]
    names = shortened_apart([_name(one) for one in shown], _NAME)
    yield from table(
        [title, "pass", "first", "change", "noise", "costs", ""],
        [
            [
                names[_name(one)],
                _PASSES.get(one.phase, "") if one.subject != one.phase else "",
                duration(one.first_ns),
                percent(one.change),
                NOT_AVAILABLE if one.noise is None else f"+-{one.noise:.1%}",
                duration(one.cost_ns),
                judgement(one),
            ]
            for one in shown
        ],
        left=[title, "pass", ""],
    )
    if any(one.noise is None for one in shown) and diff.places.noise is not None:
        yield "n/a: its calls are nearly all interrupted, so that its time is not known"
    if len(changes) > len(shown):
        yield f"and {pluralise(len(changes) - len(shown), 'other place')} with smaller changes"


def _name(one: PlaceChange) -> str:
    return one_line(phase_title(one.phase) if one.subject == one.phase else one.subject)


def _bounds(one: Figure) -> str:
    if one.low is None or one.high is None:
        return NOT_AVAILABLE
    return f"{100 * one.low:+.1f} .. {100 * one.high:+.1f}%"


def _collectives(diff: Diff) -> Iterator[str]:
    if not diff.collectives:
        return
    yield from table(
        ["collectives", "calls", "", "bytes", "", "wait and transfer", ""],
        [
            [
                shortened(one_line(f"{one.op} of {one.kind}"), _NAME),
                plain(one.first_calls),
                plain(one.second_calls),
                byte_size(one.first_bytes),
                byte_size(one.second_bytes),
                duration(one.first_ns),
                duration(one.second_ns),
            ]
            for one in diff.collectives[:_SHOWN]
        ],
        left=["collectives"],
    )


def _work(diff: Diff) -> Iterator[str]:
    if not diff.work:
        return
    shown = diff.work[:_SHOWN]
    names = shortened_apart([one_line(one.module) for one in shown], _NAME)
    yield from table(
        ["changed work", "of", "first", "second"],
        [[names[one_line(one.module)], one.what, *_amounts(one)] for one in shown],
        left=["changed work", "of"],
    )
    if len(diff.work) > len(shown):
        yield f"and {len(diff.work) - len(shown):,} more"


def _amounts(one: WorkChange) -> tuple[str, str]:
    first, second = (NOT_AVAILABLE if value is None else quantity(value) for value in (one.first, one.second))
    return first, second


def _folded(text: str) -> list[str]:
    return wrapped(text, "", "  ", width=_WIDTH)
