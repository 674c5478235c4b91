"""What to look at next, for each finding of the verdict: one sentence each."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.analysis import Analysis
from distprof.merge.quantities import whole_percent
from distprof.merge.report import NOBODY_STANDS_OUT, OVERLOADED, SLOW, THROUGHOUT, Burst
from distprof.merge.skew.verdict import verdict
from distprof.merge.time_use import time_use
from distprof.merge.wording import phase_title

#: From which share of an iteration on time without work in modules is worth a look.
_LARGE_SHARE = 0.1
_SLOW_THERE = {
    THROUGHOUT: "look at its machine: clock rates, temperature, other processes",
    "data": "look at its DataLoader: number of workers, prefetching, the disk that it reads",
    "optimizer": "compare its parameters and optimizer state with those of other ranks (Memory)",
    "outside": "look at what the script does between modules on this rank: logging, .item(), a checkpoint",
    "other": "look at what the script does outside of the phases on this rank: logging, a checkpoint",
    "evaluation": "look at what it evaluates: the other ranks wait for it",
}
_SLOW_HOST = "clock rates, temperature, other jobs, its network and storage"
_SLOW_IN_MODULE = "compare what it computes there with other ranks (sequence lengths, tokens of experts), then devices"
_PAUSES = {
    "garbage collection": "call gc.freeze() after the set-up, or collect at a step of your choice: gc.disable()",
    "compilation": "TORCH_LOGS=recompiles says why the compiler runs again: mark dynamic shapes, or pad inputs",
}
_SOMETIMES = {
    "data": "look at what the DataLoader does in these iterations: a new epoch, a full disk cache, slow storage",
    "outside": "look at what the script does in these iterations: logging, .item(), a checkpoint",
    "other": "look at what the script does in these iterations: logging, a checkpoint",
}
_LARGE_PHASE = {
    "data": "more DataLoader workers, prefetching, or faster storage would shorten it",
    "outside": "much time passes between modules: look for .item(), logging, or work that is in no module",
    "other": "much time passes outside of the phases: look for logging, checkpoints, or waits in the script",
}


def next_steps(analysis: Analysis) -> Iterator[str]:
    """Yields what to look at, the most important first."""
    concluded = verdict(analysis)
    found = concluded.ranks
    if found.finding == SLOW:
        first = found.named[0]
        if found.groups and found.groups[0].kind == "host":
            yield f"look at host {found.groups[0].name}: {_SLOW_HOST}"
        else:
            yield _SLOW_THERE.get(first.subject, _SLOW_THERE.get(first.phase, _SLOW_IN_MODULE))
    yield from (hint for hint in (_burst_hint(burst) for burst in concluded.bursts[:1]) if hint)
    if concluded.expert.finding == OVERLOADED:
        yield "look at the router's balance: its auxiliary loss, its capacity (Experts)"
    if found.finding == NOBODY_STANDS_OUT or len(analysis.ranks) == 1:
        yield from _large_phases(analysis)


def _burst_hint(found: Burst) -> str:
    """Returns what to look at where single iterations are long; empty where nothing is known to help."""
    for name, hint in _PAUSES.items():
        if found.pause.startswith(name):
            return hint
    return _SOMETIMES.get(found.phase, "")


def _large_phases(analysis: Analysis) -> Iterator[str]:
    shares = {one.phase: one.share for one in time_use(analysis).phases}
    for phase, hint in _LARGE_PHASE.items():
        if shares.get(phase, 0) >= _LARGE_SHARE:
            yield f"{phase_title(phase)} takes {whole_percent(shares[phase])} of an iteration: {hint}"
