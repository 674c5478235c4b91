"""The comparison of two runs as text: what changed beyond the noise first, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distprof.merge.diff.data import INSIDE, LESS, MORE, UNKNOWN, Diff, Figure, PlaceChange, WorkChange
from distprof.merge.quantities import NOT_AVAILABLE, byte_size, duration, plain, quantity
from distprof.merge.text.format.lines import heading, join_blocks, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import place_name, pluralise

_NAME = 44
_SHOWN = 10
_ALIKE = 0.03
_UNITS: dict[str, Callable[[float | None], str]] = {
    "ns": duration,
    "bytes": byte_size,
    "samples/s": lambda value: NOT_AVAILABLE if value is None else f"{plain(value)} /s",
    "share": lambda value: NOT_AVAILABLE if value is None else f"{100 * value:.2f}%",
    "count": quantity,
}


def render(diff: Diff) -> str:
    """Returns the whole text."""
    blocks = (
        _title(diff),
        _answer(diff),
        _figures(diff),
        _places(diff),
        _collectives(diff),
        _work(diff),
        _verdict(diff),
    )
    return join_blocks(list(block) for block in blocks)


def _title(diff: Diff) -> Iterator[str]:
    yield heading("distprof diff")
    yield f"first:  {one_line(diff.first)}"
    yield f"second: {one_line(diff.second)}"
    for one in diff.setup:
        effect = f": {one.effect}" if one.effect else ""
        yield from wrapped(one_line(f"differs: {one.what}, {one.first} and {one.second}{effect}"), "", "  ")
    for note in diff.notes:
        yield from wrapped(one_line(f"note: {note}"), "", "  ")


def _answer(diff: Diff) -> Iterator[str]:
    """Yields the conclusions: what is worse or better beyond the noise, and which places are."""
    if diff.why_not:
        yield from wrapped(one_line(f"the runs cannot be compared: {diff.why_not}"), "", "  ")
        return
    changed = [one for one in diff.figures if one.finding in (MORE, LESS) and one.unit != "count"]
    for one in changed:
        yield f"{one.name}: {_percent(one.change)} ({_range(one)}){' worse' if one.is_worse else ''}"
    named = [one for one in diff.places if one.finding in (MORE, LESS)]
    for place in named[:_SHOWN]:
        how, what = ("slower", "costs") if place.finding == MORE else ("faster", "gains")
        where = one_line(place_name(place.subject, place.phase))
        amount = f"{what} {duration(abs(place.cost_ns))}, {abs(place.share):.1%} of an iteration"
        yield from wrapped(f"{how}: {where}, {_percent(place.change)} ({_range(place)}), {amount}", "", "  ")
    if changed and diff.common is not None and abs(diff.common) >= _ALIKE:
        alike = f"all modules alike: {_percent(diff.common)}, a matter of the machine, of torch or of number formats"
        yield from wrapped(f"{alike} rather than of one module; changes of modules are relative to it", "", "  ")
    if not changed and not named:
        unknown = any(one.finding == UNKNOWN for one in diff.figures)
        yield "the noise is not known, so that no change can be called one" if unknown else "no change beyond the noise"


def _figures(diff: Diff) -> Iterator[str]:
    if not diff.figures:
        return
    yield from table(
        ["figure", "first", "second", "change", "bounds", "finding"],
        [
            [
                one.name,
                *_values(one),
                _percent(one.change),
                _range(one),
                _finding(one),
            ]
            for one in diff.figures
        ],
        left=["figure", "finding"],
    )
    for why in dict.fromkeys(one.why for one in diff.figures if one.why):
        yield from wrapped(f"note: {why}", "", "  ")


def _values(one: Figure) -> tuple[str, str]:
    show = _UNITS[one.unit]
    return show(one.first), show(one.second)


def _places(diff: Diff) -> Iterator[str]:
    if diff.why_no_places:
        yield from wrapped(f"places are not compared: {diff.why_no_places}", "", "  ")
    if not diff.places:
        return
    shown = diff.places[:_SHOWN]
    names = shortened_apart([one_line(place_name(one.subject, one.phase)) for one in shown], _NAME)
    yield from table(
        ["self time", "first", "second", "change", "bounds", "of iteration", "finding"],
        [
            [
                names[one_line(place_name(one.subject, one.phase))],
                duration(one.first_ns),
                duration(one.second_ns),
                _percent(one.change),
                _range(one),
                f"{100 * one.share:+.1f}%",
                _finding(one),
            ]
            for one in shown
        ],
        left=["self time", "finding"],
    )
    if len(diff.places) > len(shown):
        yield f"and {pluralise(len(diff.places) - len(shown), 'other place')} with smaller changes"


def _collectives(diff: Diff) -> Iterator[str]:
    if not diff.collectives:
        return
    yield from table(
        ["collectives", "calls", "", "bytes", "", "wait and transfer", ""],
        [
            [
                one_line(f"{one.op} of {one.kind}"),
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


def _verdict(diff: Diff) -> Iterator[str]:
    said = diff.verdict
    if said.first == said.second and not said.new_hot_experts:
        yield from wrapped(one_line(f"slow ranks: {said.first}, in both runs"), "", "  ")
        return
    yield from wrapped(one_line(f"slow ranks, first:  {said.first}"), "", "  ")
    yield from wrapped(one_line(f"slow ranks, second: {said.second}"), "", "  ")
    for name in said.new_hot_experts[:_SHOWN]:
        yield from wrapped(one_line(f"overloaded in the second run only: {name}"), "", "  ")


def _finding(one: Figure | PlaceChange) -> str:
    return "" if isinstance(one, Figure) and one.unit == "count" and one.finding == INSIDE else one.finding


def _percent(change: float | None) -> str:
    return NOT_AVAILABLE if change is None else f"{100 * change:+.1f}%"


def _range(one: Figure | PlaceChange) -> str:
    if one.low is None or one.high is None:
        return NOT_AVAILABLE
    return f"{100 * one.low:+.1f}% .. {100 * one.high:+.1f}%"
