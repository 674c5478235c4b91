"""The first screen of the page: what the comparison comes to, with its evidence."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.diff.data import FASTER, INSIDE, NOT_COMPARABLE, SLOWER, UNKNOWN, Diff
from distprof.merge.diff.sentences import (
    WIDE,
    common_sentence,
    headline,
    named_places,
    noise_sentence,
    percent,
    place_sentences,
    span,
    values,
    verdict_sentences,
)
from distprof.merge.html.cards import FINE, FOUND, Card
from distprof.merge.html.cards import UNKNOWN as NOT_KNOWN
from distprof.merge.quantities import duration
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import place_name, pluralise

_SHOWN = 8
_STATES = {SLOWER: FOUND, FASTER: FINE, INSIDE: FINE, UNKNOWN: NOT_KNOWN, NOT_COMPARABLE: NOT_KNOWN}
_TITLES = {
    SLOWER: "The second run is slower",
    FASTER: "The second run is faster",
    INSIDE: "No change beyond the noise",
    UNKNOWN: "The noise is not known",
    NOT_COMPARABLE: "The runs cannot be compared",
}


def cards(diff: Diff) -> list[Card]:
    """Returns the cards, the conclusion first."""
    return [_conclusion(diff), *_places(diff), _verdict(diff), *_setup(diff)]


def _conclusion(diff: Diff) -> Card:
    finding = diff.conclusion.finding
    facts = [
        (one.name, f"{' -> '.join(values(one))}, {percent(one.change)}") for one in diff.figures if one.unit != "count"
    ]
    sentence = " ".join(
        _sentence(words) for words in (headline(diff), noise_sentence(diff), common_sentence(diff)) if words
    )
    state = NOT_KNOWN if finding == INSIDE and noise_sentence(diff) else _STATES[finding]
    return Card("conclusion", state, _TITLES[finding], sentence, facts=facts, section="figures")


def _places(diff: Diff) -> Iterator[Card]:
    if diff.why_not:
        return
    named = named_places(diff)
    if not named:
        state = NOT_KNOWN if diff.places.noise is None or diff.places.noise > WIDE else FINE
        title = "Modules are not judged" if diff.places.noise is None else "No module changed beyond the noise"
        yield Card("places", state, title, " ".join(map(_sentence, place_sentences(diff, _SHOWN))), section="places")
        return
    slower = sum(one.cost_ns > 0 for one in named)
    counts = [f"{pluralise(count, 'place')} {how}" for count, how in _counted(slower, len(named) - slower) if count]
    yield Card(
        "places",
        FOUND if slower else FINE,
        ", ".join(counts),
        "",
        ("where", "change", "by chance between", "costs", "of an iteration"),
        [
            [
                one_line(place_name(one.subject, one.phase)),
                percent(one.change),
                span(one.low, one.high),
                duration(one.cost_ns),
                percent(one.share),
            ]
            for one in named[:_SHOWN]
        ],
        section="places",
    )


def _counted(slower: int, faster: int) -> tuple[tuple[int, str], tuple[int, str]]:
    return (slower, "slower"), (faster, "faster")


def _verdict(diff: Diff) -> Card:
    said = diff.verdict
    is_new = bool(said.new_slow_ranks or said.new_hot_experts)
    title = "New culprits in the second run" if is_new else "No new culprit"
    words = " ".join(map(_sentence, verdict_sentences(diff, _SHOWN)))
    return Card("verdict", FOUND if is_new else FINE, title, words)


def _setup(diff: Diff) -> Iterator[Card]:
    if diff.setup:
        title = f"The set-up differs in {pluralise(len(diff.setup), 'point')}"
        facts = [(one_line(one.what), one_line(f"{one.first} -> {one.second}")) for one in diff.setup[:_SHOWN]]
        yield Card("setup", NOT_KNOWN, title, "", facts=facts, section="setup")


def _sentence(words: str) -> str:
    return one_line(f"{words[:1].upper()}{words[1:]}.")
