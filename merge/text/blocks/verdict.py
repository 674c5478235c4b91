"""The last words of the report: who is slow, and which expert is overloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import duration, whole_percent
from distprof.merge.report import (
    NOBODY_STANDS_OUT,
    NOT_ENOUGH,
    ONE_OF,
    OVERLOADED,
    SLOW_HOST,
    Burst,
    RankVerdict,
    Report,
    SlowGroup,
    Straggler,
)
from distprof.merge.text.format.colour import RED, Part
from distprof.merge.text.format.lines import WIDTH, one_line, wrapped
from distprof.merge.wording import group_kinds, group_name, join_words, place_name
from distprof.rank_names import rank_names

#: The phase whose name is no noun.
_OTHER = "other"
#: Reasons of long iterations in the sentence; summary.json has all.
_BURSTS = 2


def verdict(report: Report, width: int = WIDTH) -> Iterator[str]:
    """Yields one sentence, in lines of ``width``; none for a single rank where no expert is overloaded."""
    head, rest = rank_words(report)
    words = [part for part in (head + rest, *burst_words(report), expert_words(report)) if part]
    if words:
        yield from wrapped("; ".join(words) + ".", parts=[Part(0, len(head), RED)], width=width)


def rank_words(report: Report) -> tuple[str, str]:
    """Returns who is slow, and by how much and where; both empty where nothing can be said."""
    found = report.verdict.ranks
    if found.finding == NOT_ENOUGH:
        return "", found.reason if len(report.ranks) > 1 else ""
    if found.finding == NOBODY_STANDS_OUT and found.cause:
        return f"{found.cause}:", f" {found.evidence}; no rank stands out by itself"
    if found.finding == NOBODY_STANDS_OUT:
        return "", f"no rank stands out{_floor(found)}{_other_windows(found)}"
    if found.finding == ONE_OF:
        return _one_of(found)
    (first, figures), *others = [*map(_group, found.groups), *_single_ranks(found)]
    head = f"{'slowest' if len(found.named) == 1 else 'slow'}: {first}:"
    more = "".join(f"; {rest}: {evidence}" for rest, evidence in others)
    by = " (by self times)" if found.why_self_times else ""
    return head, f" {figures}{more}{_windows(found)}{_cause(found)}{_cost(found)}{by}"


def _group(found: SlowGroup) -> tuple[str, str]:
    """Returns which host or group is slow as a whole, and the evidence."""
    who = group_name(found.kind, one_line(found.name), found.ranks)
    place = place_name(one_line(found.subject), one_line(found.phase))
    others = f"the other {group_kinds(found.kind)}"
    if found.groups == 2:
        others = f"the other host (the slower of two {group_kinds(found.kind)})"
    return (
        f"{len(found.slow)} of {len(found.ranks)} ranks of {who}, {place}",
        f"{duration(found.excess_ns)} above {others}, {found.share:.0%} of an iteration, in {found.steps} of "
        f"{found.of_steps} steps",
    )


def _single_ranks(found: RankVerdict) -> Iterator[tuple[str, str]]:
    """Yields the ranks that are slow by themselves, place by place, and the evidence."""
    inside = {rank for group in found.groups for rank in group.slow}
    for place, own in _by_place([one for one in found.named if one.rank not in inside]).items():
        yield f"{_named(own)}, {place}", _figures(own)


def _floor(found: RankVerdict) -> str:
    if found.floor_ns is None or not found.iteration_ns:
        return ""
    by = " by self times" if found.why_self_times else ""
    words = f"{_part(found, found.floor_ns)} or more in one module or phase"
    if found.floor_throughout_ns is not None:
        words += f", or {_part(found, found.floor_throughout_ns)} throughout"
    return f"{by}: one that loses {words} would have been seen"


def _windows(found: RankVerdict) -> str:
    """Returns in how many windows of several the ranks are slow."""
    if len(found.windows) < 2:
        return ""
    if len(found.windows_again) < 2:
        return f"; only in window {found.windows_again[0]} of {len(found.windows)}"
    return f"; slow in {len(found.windows_again)} of {len(found.windows)} windows"


def _other_windows(found: RankVerdict) -> str:
    """Returns who is named in other windows than the one that is shown."""
    named = [f"window {one.window} ({rank_names(one.ranks)})" for one in found.windows if one.ranks]
    return f"; ranks stood out in {join_words(named)}" if named else ""


def _part(found: RankVerdict, time_ns: float) -> str:
    return f"{duration(time_ns)} ({whole_percent(time_ns / (found.iteration_ns or 1))} of an iteration)"


def _cause(found: RankVerdict) -> str:
    """Returns why they are slow; that it is a host is said by its name."""
    return f"; {found.cause}: {found.evidence}" if found.cause and found.cause != SLOW_HOST else ""


def _cost(found: RankVerdict) -> str:
    if found.cost_ns is None or found.iteration_without_ns is None or found.iteration_ns is None:
        return ""
    without = "without it" if len(found.named) == 1 else "without them"
    if found.others_are_late:
        return f"; {without} an iteration would hardly be shorter: others are late, too"
    return (
        f"; {without} an iteration would take {duration(found.iteration_without_ns)} instead of "
        f"{duration(found.iteration_ns)}"
    )


def _one_of(found: RankVerdict) -> tuple[str, str]:
    """Returns several ranks of one group, and each with its place."""
    first, last = found.named[0], found.named[-1]
    where = ", ".join(f"{_named(own)} in {place}" for place, own in _by_place(found.named).items())
    group = f" (one {found.axis} group)" if found.axis else ""
    return (
        f"one of these is slow: {_named(found.named)}{group}:",
        f" {duration(last.excess_ns)} to {duration(first.excess_ns)} above the others of their cohort, "
        f"{first.share:.0%} of an iteration: {where}; one of them computes longer and the others wait for it, and "
        "which of them waits was not recorded",
    )


def _by_place(named: Sequence[Straggler]) -> dict[str, list[Straggler]]:
    """Returns the stragglers by their place, in words, in their order."""
    places: dict[str, list[Straggler]] = {}
    for one in named:
        places.setdefault(place_name(one_line(one.subject), one_line(one.phase)), []).append(one)
    return places


def _named(stragglers: Sequence[Straggler]) -> str:
    return rank_names(one.rank for one in stragglers)


def _figures(stragglers: Sequence[Straggler]) -> str:
    """Returns the evidence on the ranks that are slow in one place, the largest excess first."""
    first, last = stragglers[0], stragglers[-1]
    excess = duration(first.excess_ns)
    if len(stragglers) > 1:
        excess = f"{duration(last.excess_ns)} to {excess}"
    of_two = " (the slower of two ranks that do the same work)" if first.cohort == 2 else ""
    steps = min(one.steps for one in stragglers)
    return (
        f"{excess} above the others of {'its' if len(stragglers) == 1 else 'their'} cohort, {first.share:.0%} of an "
        f"iteration, in {steps} of {first.of_steps} steps{of_two}{_waits(stragglers)}"
    )


def _waits(stragglers: Sequence[Straggler]) -> str:
    """Returns how much longer ranks that are slow in one place wait for a processor there, besides or at most."""
    longest = max(stragglers, key=lambda one: one.processor_wait_ns)
    if not longest.processor_wait_ns:
        return ""
    most = "" if len(stragglers) == 1 else "up to "
    if longest.waits_apart:
        return f", besides {most}{duration(longest.processor_wait_ns)} of longer waits for a processor"
    return f", of which up to {duration(longest.processor_wait_ns)} may be longer waits for a processor"


def burst_words(report: Report) -> list[str]:
    """Returns what makes some iterations long, the costliest bursts only."""
    return [_burst(one, alone=len(report.ranks) == 1) for one in report.verdict.bursts[:_BURSTS]]


def _burst(found: Burst, *, alone: bool) -> str:
    """Returns in how many steps which ranks lose how much, and where."""
    everyone = "the script loses" if alone else "all ranks lose"
    who = everyone if found.everywhere else f"{rank_names(found.ranks)} lose{'s' * (len(found.ranks) == 1)}"
    place = place_name(one_line(found.subject), one_line(found.phase))
    place = f'the phase "{place}"' if place == _OTHER else place
    pause = f": {one_line(found.pause)}" if found.pause else ""
    steps = f"{len(found.iterations)} of {found.of_steps} steps"
    return f"in {steps} {who} {duration(found.excess_ns)} in {place}{pause}"


def expert_words(report: Report) -> str:
    """Returns which expert is overloaded; empty where none is."""
    found = report.verdict.expert
    if found.finding != OVERLOADED:
        return ""
    return f"largest overload: expert {found.expert} of {one_line(found.layer)}, {found.max_over_mean:.2f} x mean"
