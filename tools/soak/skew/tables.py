"""The tables of judged cases: a row for each kind of fault, and one for each architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from soak.skew.cases import HEALTHY
from soak.skew.judge import ABSTAINED, FAILED, HARMLESS, OUTCOMES, RIGHT, WITHIN, WRONG, Judgement

_COLUMNS = (
    "runs", *OUTCOMES, "place right", "cause right", f"excess within {WITHIN:.0%}", f"cost within {WITHIN:.0%}",
)  # fmt: skip


def tables(judged: Sequence[Judgement]) -> str:
    """Returns both tables, the rates that count, and the cases that were not judged right."""
    faulty = [one for one in judged if one.case.fault not in HEALTHY]
    by_fault = _table("fault", judged, lambda one: one.case.fault)
    by_architecture = _table("architecture", faulty, lambda one: f"{one.case.architecture} w{one.case.ranks}")
    return "\n\n".join(part for part in (by_fault, by_architecture, _rates(judged), _not_right(judged)) if part)


def _table(title: str, judged: Sequence[Judgement], key: Callable[[Judgement], str]) -> str:
    rows: list[tuple[str, ...]] = [(title, *_COLUMNS)]
    for name in dict.fromkeys(key(one) for one in judged):
        rows.append((name, *_cells([one for one in judged if key(one) == name])))
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    return "\n".join(f"{row[0]:{widths[0]}}" + _aligned(row[1:], widths[1:]) for row in rows)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _cells(judged: Sequence[Judgement]) -> list[str]:
    counts = [str(sum(one.outcome == outcome for one in judged)) for outcome in OUTCOMES]
    places = [one.place for one in judged if one.place is not None]
    causes = [one.cause for one in judged if one.cause is not None]
    excesses = [abs(one.excess - 1) <= WITHIN for one in judged if one.excess is not None]
    costs = [abs(one.cost - 1) <= WITHIN for one in judged if one.cost is not None]
    return [str(len(judged)), *counts, *map(_of, (places, causes, excesses, costs))]


def _of(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} of {len(hits)}" if hits else "n/a"


def _rates(judged: Sequence[Judgement]) -> str:
    healthy = [one for one in judged if one.case.fault in HEALTHY]
    alarms = sum(one.outcome == WRONG for one in healthy)
    right = sum(one.outcome == RIGHT for one in judged) - sum(one.outcome == RIGHT for one in healthy)
    faulty = len(judged) - len(healthy)
    wrong = sum(one.outcome == WRONG for one in judged) - alarms
    harmless = [sum(word in one.words for one in healthy) for word in HARMLESS]
    return (
        f"healthy: {alarms} of {len(healthy)} named somebody, {harmless[0]} a single pause of a rank, and "
        f"{harmless[1]} too few processors; "
        f"planted: {right} of {faulty} right, {wrong} wrong"
    )


def _lost(one: Judgement) -> str:
    return f" lost {one.lost_ms:.1f} ms" if one.lost_ms is not None else ""


def _not_right(judged: Sequence[Judgement]) -> str:
    return "\n".join(
        f"{one.case.name}: {one.outcome}: rank {one.case.rank} {one.case.module}{_lost(one)}; said: {one.words}"
        for outcome in (FAILED, WRONG, ABSTAINED)
        for one in judged
        if one.outcome == outcome
    )
