"""The state of a job in sentences."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from distprof.commands.live.rows import NOT_BEGUN, collective
from distprof.launcher.daemon.job_view import JobView, RankView, marked
from distprof.launcher.daemon.slow_rank.wording import sentence
from distprof.rank_names import rank_names

_NS = 1e9
_MOST_COLLECTIVES = 3
_ENDED = {
    "ended": "ended",
    "dead": "died: the process has gone without an end",
    "unseen": "not seen: no iteration is recorded any more",
    "silent": "silent: the daemon of the node is not heard",
}


def paragraph(job: JobView) -> str:
    """Returns some sentences in one paragraph."""
    return " ".join(_sentences(job))


def _sentences(job: JobView) -> Iterator[str]:
    if not job.ranks:
        yield f"{NOT_BEGUN[:1].upper()}{NOT_BEGUN[1:]}."
        return
    running = [rank for rank in job.ranks if rank.lag is not None]
    yield f"{len(running)} of {job.world_size} ranks run{_on_hosts(running)}."
    if running:
        yield _progress(running)
        yield from _collectives(running)
    if job.hang is not None:
        yield f"The job stands still, {job.hang.kind}: {job.hang.cause}. {_capital(job.hang.where)}."
    else:
        for rank in marked(running, "stuck"):
            yield _stuck(rank)
    if job.slowest is not None:
        yield f"{_capital(sentence(job.slowest))}."
    slow = [rank for rank in marked(running, "slow") if job.slowest is None or rank.status.rank != job.slowest.rank]
    if slow:
        behind = max(rank.lag or 0 for rank in slow)
        names = rank_names(rank.status.rank for rank in slow)
        yield f"Slow: {names}, at most {behind} iterations behind the furthest rank."
    for mark, words in _ENDED.items():
        found = marked(job.ranks, mark)
        if found:
            yield f"{rank_names(rank.status.rank for rank in found)} {words}.".capitalize()
    for rank in job.ranks:
        if rank.status.error:
            yield f"Rank {rank.status.rank} had an error: {rank.status.error}."
    if job.missing:
        yield f"Nothing was heard of {rank_names(job.missing)}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _on_hosts(running: list[RankView]) -> str:
    hosts = {rank.status.host for rank in running}
    if not hosts:
        return ""
    return f" on {len(hosts)} hosts" if len(hosts) > 1 else f" on {hosts.pop()}"


def _progress(running: list[RankView]) -> str:
    numbers = [rank.status.iteration for rank in running]
    where = f"Iteration {numbers[0]}" if len(set(numbers)) == 1 else f"Iterations {min(numbers)} to {max(numbers)}"
    paces = [rank.iterations_per_s for rank in running if rank.iterations_per_s is not None]
    pace = f", {statistics.median(paces):.4g} iterations a second" if paces else ""
    recorded = {rank.status.window for rank in running if rank.status.state in ("counted", "timed", "traced")}
    return f"{where}{pace}{f'; window {max(recorded)} is recorded' if recorded else ''}."


def _collectives(running: list[RankView]) -> Iterator[str]:
    """Yields in which collectives most ranks were seen; they are looked at in timed iterations."""
    found: dict[str, list[int]] = {}
    for rank in running:
        if rank.status.collective_runs:
            found.setdefault(collective(rank.status), []).append(rank.status.rank)
    for words, ranks in sorted(found.items(), key=lambda one: -len(one[1]))[:_MOST_COLLECTIVES]:
        yield f"Last seen in {words}: {rank_names(ranks)}."


def _stuck(rank: RankView) -> str:
    status, usual = rank.status, rank.status.p99_ns
    known = f"; 99% of its iterations took at most {usual / _NS:.3g} s" if usual else ""
    where = f" in {status.phase} of {status.module}" if status.module else ""
    return f"Rank {status.rank} is stuck{where}: iteration {status.iteration} runs for {status.age_s:.0f} s{known}."
