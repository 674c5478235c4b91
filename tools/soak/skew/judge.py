"""Judges the conclusion of a report against the fault that was planted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

from distprof.merge.report import BOTH_WAYS
from soak.skew.cases import HEALTHY, MODULE_FAULTS, PHASE_FAULTS, SOMETIMES, Case
from soak.skew.conclusions import Conclusion, conclude

RIGHT, WRONG, ABSTAINED, TOO_SMALL, FAILED = OUTCOMES = ("right", "wrong", "abstained", "too small", "failed")
#: A fault that costs a smaller share of the iteration need not be named.
SMALL = 0.05
#: Of fewer groups it cannot be told which one is the normal one.
FEWEST_GROUPS = 3
#: How far the excess that is said may be from what was lost, and the cost from what iterations took longer.
WITHIN = 0.25
#: What iterations took longer is known if its standard error is at most this share of it.
KNOWN_WITHIN = 0.15
#: It is not known either where ranks wait for a processor for more than this share of their iterations: without the
#: fault the ranks share the processors differently, and the iteration changes by more than the fault.
FREE_PROCESSORS = 0.1
#: A word that the cause contains, for faults of which the rank alone is not the answer.
CAUSES = {
    "uneven": "work", "hot": "expert", "link": "link", "longstage": "stage", "pause": "pause", "ckpt": "pause",
}  # fmt: skip
#: The cause of ranks that are not slow, but wait for a processor: they have a low priority, or there are too few.
BUSY = "processors"
#: Words of causes that name no rank as slow: of what happened once, or to a host.
HARMLESS = ("pause", BUSY)
#: Faults of which naming a rank as slow in all steps is wrong, whichever it is.
_NO_SLOW_RANK = ("link", "longstage", "pause", "ckpt")
_EVERYWHERE = ("spread", "throttle", "halved", "gil", "nice")


@dataclass(frozen=True)
class Judgement:
    """One case: whether the verdict is right, and as far as there is an answer, its place, its cause and its cost."""

    case: Case
    outcome: str
    place: bool | None = None
    cause: bool | None = None
    excess: float | None = None  # said / lost
    cost: float | None = None  # said / what iterations took longer than without the fault
    lost_ms: float | None = None  # the median over the timed steps
    words: str = ""


def judge(case: Case, folder: Path, run: str) -> Judgement:
    """Merges what the case recorded in its folder, and judges the verdict."""
    try:
        said = conclude(folder / run)
    except Exception as error:
        return Judgement(case, FAILED, words=f"{type(error).__name__}: {error}")
    lost = _lost_ms(case, folder, said.iterations)
    outcome = judge_ranks(case, said)
    small_ms = SMALL * (said.iteration_ns or 0) / 1e6
    longer_ms = _mean_longer_ms(folder) if lost is not None else _least_longer_ms(folder)
    if outcome == ABSTAINED and any(ms is not None and ms < small_ms for ms in (lost, longer_ms)):
        outcome = TOO_SMALL
    right = outcome == RIGHT and bool(case.culprits) and case.fault != "half"
    longer = _longer_ms(folder) if (said.processor_share or 0) <= FREE_PROCESSORS else None
    there = (lost or 0) * _share_of_place(case, said)
    return Judgement(
        case, outcome,
        place=_right_place(case, said) if right else None,
        cause=_right_cause(case, said),
        excess=said.excess_ns / 1e6 / there if right and said.excess_ns and there else None,
        cost=said.cost_ns / 1e6 / longer if right and said.cost_ns is not None and longer else None,
        lost_ms=lost,
        words=said.words,
    )  # fmt: skip


def judge_ranks(case: Case, said: Conclusion) -> str:
    """Returns whether the right ranks are named, or those that should not be, or none."""
    nobody = not (said.named or said.one_of or said.group)
    if case.fault in (*HEALTHY, "half") or (case.fault == "link" and len(case.slow_group) == case.ranks):
        return RIGHT if nobody or any(cause in said.cause for cause in HARMLESS) else WRONG
    if case.fault in _NO_SLOW_RANK:
        return _judge_cause(case, said, nobody)
    if nobody:
        return RIGHT if _needs_no_rank(case, said) else ABSTAINED
    if set(said.named) == case.culprits:
        return RIGHT
    if BUSY in said.cause and not said.named:
        return RIGHT if case.fault == "nice" and set(said.group) == case.culprits else ABSTAINED
    inside = set(said.one_of) >= case.culprits or (bool(said.named) and set(said.named) < case.culprits)
    return ABSTAINED if inside else WRONG


def _needs_no_rank(case: Case, said: Conclusion) -> bool:
    """Whether it is right to name nobody: the fault is not in most steps, which half is the normal one cannot be told,
    or the overloaded expert of the hot rank, of 16 that are divided over all ranks, is named.
    """
    if case.fault == "hot":
        return said.overloaded_expert is not None and said.overloaded_expert // (16 // case.ranks) == case.rank
    return case.fault in SOMETIMES or 2 * len(case.culprits) >= case.ranks


def _judge_cause(case: Case, said: Conclusion, nobody: bool) -> str:
    if nobody and not said.cause:
        too_few = case.fault == "link" and case.ranks < FEWEST_GROUPS * len(case.slow_group)
        return RIGHT if too_few else ABSTAINED
    if CAUSES[case.fault] not in said.cause:
        return WRONG
    who = set(said.group or said.named)
    if case.fault == "link":
        return RIGHT if who and who <= case.slow_group else WRONG
    if case.fault == "longstage":
        return RIGHT if who <= set(range(case.ranks // 2, case.ranks)) else WRONG
    return RIGHT if who == case.culprits else WRONG


def _right_place(case: Case, said: Conclusion) -> bool | None:
    """Whether module and phase are those of the fault; None for a fault that is no place's."""
    if case.fault in PHASE_FAULTS:
        return said.phase == PHASE_FAULTS[case.fault]
    if case.fault in _EVERYWHERE:
        return said.subject in ("throughout", "forward", "backward")
    phase = BOTH_WAYS if case.fault == "both" else MODULE_FAULTS.get(case.fault)
    if phase is None or case.fault == "gc":
        return None
    return said.phase == phase and f".{said.subject}".endswith(f".{case.module_label}")


def _right_cause(case: Case, said: Conclusion) -> bool | None:
    return CAUSES[case.fault] in said.cause if case.fault in CAUSES and said.cause else None


def _share_of_place(case: Case, said: Conclusion) -> float:
    """Returns the share of a rank's loss that is in the named place: half, where a module loses time both ways."""
    return 0.5 if case.fault == "both" and said.phase in ("forward", "backward") else 1.0


def _lost_ms(case: Case, folder: Path, iterations: Sequence[int]) -> float | None:
    """Returns what the culprit that lost most really lost in an iteration; None for other faults and pauses."""
    medians = []
    for rank in case.culprits if case.fault not in _NO_SLOW_RANK else ():
        path = folder / f"lost{rank}.json"
        lost = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if lost and iterations:
            medians.append(median(lost.get(str(number), 0) for number in iterations))
    return max(medians) / 1e6 if medians else None


def _longer_ms(folder: Path) -> float | None:
    """Returns what an iteration took longer with the fault than without it, in the blocks of iterations after the
    window; None where that is not known, because the machine was too busy or the fault is not switched off.
    """
    longer = _longer_by_block_ms(folder)
    if not longer:
        return None
    error = stdev(longer) / len(longer) ** 0.5
    return mean(longer) if error <= KNOWN_WITHIN * mean(longer) else None


def _mean_longer_ms(folder: Path) -> float | None:
    """Returns the same as far as it can be told: where ranks share processors, others use those of one that sleeps, and
    what it loses may cost nothing.
    """
    longer = _longer_by_block_ms(folder)
    return mean(longer) if longer else None


def _least_longer_ms(folder: Path) -> float | None:
    """Returns the same less its standard error, for a fault of which nothing else says what it costs."""
    longer = _longer_by_block_ms(folder)
    return mean(longer) - stdev(longer) / len(longer) ** 0.5 if len(longer) > 1 else None


def _longer_by_block_ms(folder: Path) -> list[float]:
    path = folder / "blocks.json"
    blocks = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [(with_fault - without) / 1e6 for with_fault, without in zip(blocks[::2], blocks[1::2], strict=True)]
