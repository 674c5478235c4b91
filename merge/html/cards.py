"""The first screen of the page: what the report concludes, with its evidence, and the key figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import duration, percentage, ratio
from distprof.merge.report import (
    NOBODY_STANDS_OUT,
    NOT_ENOUGH,
    NOT_SEEN,
    ONE_OF,
    OVERLOADED,
    SLOW,
    RankVerdict,
    Report,
    SlowGroup,
    Straggler,
)
from distprof.merge.text.blocks.verdict import burst_words, expert_words, rank_words
from distprof.merge.text.blocks.warmup import warmup_words
from distprof.merge.text.first_page import key_figures
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import group_kinds, group_name, join_words, place_name, pluralise
from distprof.plain import dataclass
from distprof.rank_names import number_spans, rank_names

#: What a card says of its finding; the page has a sign and a colour for each.
FOUND, FINE, UNKNOWN = "found", "fine", "unknown"
_SHOWN = 6


@dataclass(frozen=True)
class Card:
    """One conclusion; ``evidence`` is a small table, ``section`` the part of the page with the details."""

    name: str
    state: str
    title: str
    sentence: str
    evidence_titles: Sequence[str] = ()
    evidence: Sequence[Sequence[str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    section: str = ""


def cards(report: Report) -> list[Card]:
    """Returns the cards, the verdict on ranks first."""
    found = [_experts(report)] if report.experts else []
    if report.verdict.bursts:
        found = [_bursts(report), *found]
    if len(report.ranks) > 1 or report.verdict.ranks.named:
        found = [_ranks(report), *found]
    return found


def hints(report: Report) -> list[str]:
    """Returns what to look at next, one sentence each."""
    return list(map(_sentence, report.next_steps))


def _sentence(words: str) -> str:
    return one_line(f"{words[:1].upper()}{words[1:]}.")


def figures(report: Report) -> list[tuple[str, str]]:
    """Returns the key figures with their labels; the iteration comes first."""
    times = report.summary.iterations
    iteration: list[tuple[str, str]] = []
    if times is not None:
        words = f"median {duration(times.median_ns)}, mean {duration(times.mean_ns)}, p95 {duration(times.p95_ns)}"
        long = f"; {len(times.long)} long: {number_spans(times.long)}" if times.long else ""
        iteration = [("iteration", f"{words}, of {pluralise(times.steps, 'timed step')}{long}")]
    elif report.warmup:
        iteration = [("iteration", warmup_words(report))]
    return [*iteration, *key_figures(report)]


def _ranks(report: Report) -> Card:
    found = report.verdict.ranks
    head, rest = rank_words(report)
    states = {SLOW: FOUND, ONE_OF: FOUND, NOBODY_STANDS_OUT: FOUND if found.cause else FINE, NOT_ENOUGH: UNKNOWN}
    return Card(
        "ranks",
        states.get(found.finding, UNKNOWN),
        _title(found),
        _sentence(f"{head}{rest}") if head or rest else "",
        ("who", "where", "above the median", "of an iteration", "in steps", "compared with"),
        list(_evidence(found)),
        list(_facts(found)),
        "skew",
    )


def _title(found: RankVerdict) -> str:
    if found.finding == SLOW:
        inside = {rank for group in found.groups for rank in group.slow}
        alone = [one.rank for one in found.named if one.rank not in inside]
        groups = [group_name(group.kind, one_line(group.name), group.ranks) for group in found.groups]
        who = join_words([*groups, *([rank_names(alone)] if alone else [])])
        return f"{who[:1].upper()}{who[1:]}: slow"
    if found.finding == ONE_OF:
        return f"One of {rank_names(one.rank for one in found.named)} is slow"
    if found.finding == NOBODY_STANDS_OUT:
        return f"{found.cause.capitalize()}: no single rank" if found.cause else "No rank stands out"
    return "Ranks cannot be compared"


def _evidence(found: RankVerdict) -> Iterator[list[str]]:
    for group in found.groups[:_SHOWN]:
        who = f"{len(group.slow)} of {len(group.ranks)} ranks of {group_name(group.kind, group.name, group.ranks)}"
        yield [one_line(who), *_figures(group), f"{group.groups - 1} other {group_kinds(group.kind)}"]
    for one in found.named[:_SHOWN]:
        yield [rank_names([one.rank]), *_figures(one), f"{one.cohort - 1} others: {duration(one.cohort_ns)}"]


def _figures(found: Straggler | SlowGroup) -> list[str]:
    where = one_line(place_name(found.subject, found.phase))
    share, steps = percentage(round(found.share, 3), 1), f"{found.steps} of {found.of_steps}"
    return [where, f"+{duration(found.excess_ns)}", share, steps]


def _facts(found: RankVerdict) -> Iterator[tuple[str, str]]:
    if len(found.named) > _SHOWN:
        yield "also named", rank_names(one.rank for one in found.named[_SHOWN:])
    if found.cause:
        yield "cause", one_line(f"{found.cause}: {found.evidence}")
    for one in found.named[:_SHOWN]:
        if one.processor_wait_ns:
            within = "besides" if one.waits_apart else "which its excess may hold"
            words = f"{duration(one.processor_wait_ns)} longer than the others, {within}"
            yield f"rank {one.rank} waits for a processor", words
    if found.others_are_late:
        yield "costs", "hardly anything: others are late, too"
    elif found.cost_ns is not None:
        yield "costs", f"{duration(found.cost_ns)} of each iteration"
    if found.iteration_without_ns is not None and found.iteration_ns is not None:
        yield "without it", f"{duration(found.iteration_without_ns)} instead of {duration(found.iteration_ns)}"
    if found.why_self_times:
        yield "by self times", one_line(found.why_self_times)


def _bursts(report: Report) -> Card:
    words = map(_sentence, burst_words(report))
    count = len({iteration for burst in report.verdict.bursts for iteration in burst.iterations})
    title = f"{pluralise(count, 'iteration')} {'is' if count == 1 else 'are'} long"
    return Card("bursts", FOUND, title, " ".join(words), section="iterations")


def _experts(report: Report) -> Card:
    found = report.verdict.expert
    if found.finding == NOT_SEEN or found.max_over_mean is None:
        return Card("experts", UNKNOWN, "Load of experts not seen", "No rank recorded the tokens of an expert.")
    name = one_line(found.layer)
    if found.finding == OVERLOADED:
        return Card(
            "experts",
            FOUND,
            f"Expert {found.expert} is overloaded",
            _sentence(expert_words(report)),
            facts=[("layer", name), ("max/mean", ratio(found.max_over_mean)), ("limit", ratio(found.overload))],
            section="experts",
        )
    sentence = (
        f"The largest load of an expert is {found.max_over_mean:.2f} x the mean of its layer, {name}: below "
        f"{found.overload:g} x, from which it is called overloaded."
    )
    return Card("experts", FINE, "Experts are balanced", sentence, section="experts")
