"""The comparison in words: the sentences that the text and the page share, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distprof.merge.diff.data import (
    FASTER,
    INSIDE,
    LESS,
    MORE,
    NOT_COMPARABLE,
    SLOWER,
    UNKNOWN,
    Diff,
    Figure,
    PlaceChange,
)
from distprof.merge.diff.figures import THROUGHPUT
from distprof.merge.quantities import NOT_AVAILABLE, byte_size, duration, plain, quantity
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import place_name, pluralise

#: Bounds of +- this share are wide.
WIDE = 0.2
_NO_CHANGE = "no change beyond the noise"
#: Changes in common below this are not worth a sentence.
_ALIKE = 0.03
_UNITS: dict[str, Callable[[float | None], str]] = {
    "ns": duration,
    "bytes": byte_size,
    "samples/s": lambda value: NOT_AVAILABLE if value is None else f"{plain(value)} /s",
    "share": lambda value: NOT_AVAILABLE if value is None else f"{100 * value:.2f}%",
    "count": quantity,
}


def headline(diff: Diff) -> str:
    """Returns what the comparison comes to, in one sentence."""
    found = diff.conclusion
    if found.finding == NOT_COMPARABLE:
        return one_line(f"the runs cannot be compared: {diff.why_not}")
    if found.finding == UNKNOWN:
        why = next((one.why for one in diff.figures if one.finding == UNKNOWN and one.why), "no time is in both runs")
        return f"the noise is not known, so that no change can be called one: {why}"
    (figure,) = (one for one in diff.figures if one.name == found.figure)
    if found.finding == INSIDE:
        slower = sum(one.finding == MORE for one in named_places(diff))
        what = f"{pluralise(slower, 'place')} slower, the iteration inside the noise" if slower else _NO_CHANGE
        return f"{what}: {figure.name} {percent(found.change)} ({span(found.low, found.high)})"
    return f"the second run is {found.finding}: {_amount(figure)} ({span(found.low, found.high)}), {_values(figure)}"


def _amount(figure: Figure) -> str:
    """Returns ``iterations take 12.3% longer``, or the same of the throughput."""
    change = figure.change or 0.0
    if figure.name == THROUGHPUT:
        return f"the throughput is {abs(change):.1%} {'higher' if change > 0 else 'lower'}"
    kind = figure.name.rpartition(" ")[2]
    return f"the {kind} iteration takes {abs(change):.1%} {'longer' if change > 0 else 'less'}"


def _values(figure: Figure) -> str:
    first, second = values(figure)
    return f"{second} instead of {first}"


def place_sentences(diff: Diff, most: int) -> Iterator[str]:
    """Yields a sentence for each place that changed beyond the noise, or one that none did."""
    named = named_places(diff)
    for place in named[:most]:
        how, what = ("slower", "costs") if place.finding == MORE else ("faster", "gains")
        where = one_line(place_name(place.subject, place.phase))
        amount = f"{what} {duration(abs(place.cost_ns))}, {abs(place.share):.1%} of an iteration"
        yield f"{how}: {where}, {percent(place.change)} ({span(place.low, place.high)}), {amount}"
    if len(named) > most:
        yield f"and {pluralise(len(named) - most, 'other place')}"
    if not named and diff.places.noise is not None:
        yield f"no module changed beyond the noise, which is +-{diff.places.noise:.1%} of a module's time"
    if diff.places.why_not:
        yield f"modules are not compared: {diff.places.why_not}"


def noise_sentence(diff: Diff) -> str:
    """Returns why the bounds of the figure that decides are wide; may be empty."""
    found = diff.conclusion
    figure = next((one for one in diff.figures if one.name == found.figure), None)
    is_wide = found.low is not None and found.high is not None and found.high - found.low > 2 * WIDE
    return f"the noise is large: {figure.why}" if figure is not None and figure.why and is_wide else ""


def common_sentence(diff: Diff) -> str:
    """Returns what all modules have in common, where the run as a whole changed; may be empty."""
    common = diff.places.common
    if common is None or abs(common) < _ALIKE or diff.conclusion.finding not in (SLOWER, FASTER):
        return ""
    return (
        f"all modules alike: {percent(common)}, a matter of the machine, of torch or of number formats rather than of "
        "one module; changes of modules are relative to it"
    )


def named_places(diff: Diff) -> list[PlaceChange]:
    """Returns the places that changed beyond the noise."""
    return [one for one in diff.places.changes if one.finding in (MORE, LESS)]


def verdict_sentences(diff: Diff, most: int) -> Iterator[str]:
    """Yields what the verdicts of the runs say of ranks and experts, and what is new in it."""
    said = diff.verdict
    if said.first == said.second:
        yield one_line(f"slow ranks: {said.first}, in both runs")
    else:
        yield one_line(f"slow ranks, first:  {said.first}")
        yield one_line(f"slow ranks, second: {said.second}")
    for name in said.new_hot_experts[:most]:
        yield one_line(f"overloaded in the second run only: {name}")
    if len(said.new_hot_experts) > most:
        yield f"and {pluralise(len(said.new_hot_experts) - most, 'other expert')}"


def values(figure: Figure) -> tuple[str, str]:
    """Returns the figure of both runs, with its unit."""
    show = _UNITS[figure.unit]
    return show(figure.first), show(figure.second)


def percent(change: float | None) -> str:
    """Returns ``+12.3%``."""
    return NOT_AVAILABLE if change is None else f"{100 * change:+.1f}%"


def span(low: float | None, high: float | None) -> str:
    """Returns ``+9.1% .. +15.6%``."""
    return NOT_AVAILABLE if low is None or high is None else f"{percent(low)} .. {percent(high)}"


def judgement(one: Figure | PlaceChange) -> str:
    """Returns one word for what a change is: worse, better, more, less or noise."""
    if one.finding == UNKNOWN:
        return NOT_AVAILABLE
    if one.finding == INSIDE:
        return "same" if one.change == 0 else "noise"
    if isinstance(one, PlaceChange):
        return "slower" if one.finding == MORE else "faster"
    if one.is_worse or one.is_better:
        return "worse" if one.is_worse else "better"
    return one.finding
