"""The last words of the report: who is slow, and which expert is overloaded."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import duration
from distprof.merge.report import OVERLOADED, ExpertVerdict, RankVerdict, Report, Straggler
from distprof.merge.text.format.colour import RED, Part
from distprof.merge.text.format.lines import one_line, wrapped
from distprof.merge.wording import phase_title, rank_names


def verdict(report: Report) -> Iterator[str]:
    """Yields one sentence; none where too few ranks can be compared and no expert is overloaded."""
    head, rest = _ranks(report.verdict.ranks)
    words = [part for part in (head + rest, _expert(report.verdict.expert)) if part]
    if words:
        yield from wrapped("; ".join(words) + ".", parts=[Part(0, len(head), RED)])


def _ranks(found: RankVerdict) -> tuple[str, str]:
    """Returns who is slow, and by how much and where; both empty where nothing can be said."""
    worst = found.largest
    if worst is None or found.share is None:
        return "", ""
    figures = f"{duration(worst.excess_ns)} above its cohort's median, {found.share:.0%} of an iteration"
    if not found.named:
        return "", f"no rank stands out: the largest excess is rank {worst.rank}'s {_place(worst)}, {figures}"
    if len(found.named) == 1:
        return f"slowest: rank {worst.rank}, {_place(worst)}:", f" {figures}{_or_waits(found)}"
    return _together(found, f"{found.share:.0%} of an iteration")


def _together(found: RankVerdict, share: str) -> tuple[str, str]:
    """Returns several ranks of one group, and each with its place, and what speaks for one of them."""
    places: dict[str, list[int]] = {}
    for one in found.named:
        places.setdefault(_place(one), []).append(one.rank)
    first, last = found.named[0], found.named[-1]
    excess = f"{duration(last.excess_ns)} to {duration(first.excess_ns)} above their cohort's median"
    where = ", ".join(f"{rank_names(ranks)} in {place}" for place, ranks in places.items())
    likely = "" if found.likely is None else f", most likely rank {found.likely}, for which the others seem to wait"
    return (
        f"slow together: {rank_names(one.rank for one in found.named)} (one {found.axis} group):",
        f" {excess}, {share}: {where}; while one computes the others of its group wait, so the cause is among "
        f"them{likely}",
    )


def _or_waits(found: RankVerdict) -> str:
    if not found.may_wait_for:
        return ""
    return (
        f"; or it waits there for {rank_names(found.may_wait_for)}, with which it shares process groups whose "
        "purpose is not known (see the note at the top)"
    )


def _place(one: Straggler) -> str:
    return phase_title(one.phase) if one.subject == one.phase else f"{one.phase} of {one_line(one.subject)}"


def _expert(found: ExpertVerdict) -> str:
    if found.finding != OVERLOADED:
        return ""
    return f"largest overload: expert {found.expert} of {one_line(found.layer)}, {found.max_over_mean:.2f} x mean"
