"""A hang in words: one line for the job's log, and a page of text with the stacks of this node for the run's folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from distprof.heartbeat.hang_file import Hang
from distprof.heartbeat.rank_look import Stack
from distprof.launcher.daemon.hang_watch.evidence import NodeEvidence, RankEvidence
from distprof.rank_names import rank_names

Stacks = Mapping[int, tuple[str, tuple[Stack, ...]]]


def line(hang: Hang, file: str) -> str:
    """Returns the line for the log; ``file`` has the stacks, if it is not empty."""
    more = f"  ->  {file}" if file else ""
    return (
        f"the job stands still, {hang.kind}: {hang.cause}. Iteration {hang.iteration} runs for {hang.age_s:.0f} s."
        f" {hang.where[:1].upper()}{hang.where[1:]}{more}"
    )


def moved_line(hang: Hang) -> str:
    return f"the job goes on: iteration {hang.iteration} is over, which stood still ({hang.kind})"


def page(hang: Hang, evidence: NodeEvidence, stacks: Stacks) -> str:
    """Returns the text for the run's folder; ranks with the same stack share it."""
    return "\n".join(_page(hang, evidence, stacks)) + "\n"


def _page(hang: Hang, evidence: NodeEvidence, stacks: Stacks) -> Iterator[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(hang.wall_ns / 1e9))
    yield f"{when}: iteration {hang.iteration} runs for {hang.age_s:.0f} s"
    yield f"{hang.kind}: {hang.cause}"
    yield hang.where
    yield from hang.evidence
    yield ""
    for rank in evidence.ranks:
        yield _rank_line(rank)
    shared: dict[tuple[str, tuple[Stack, ...]], list[int]] = {}
    for number, found in stacks.items():
        shared.setdefault(found, []).append(number)
    for (source, threads), ranks in sorted(shared.items(), key=lambda item: item[1]):
        yield ""
        yield f"{rank_names(ranks)}, by {source}:"
        for stack in threads:
            yield from _stack_lines(stack)


def _rank_line(rank: RankEvidence) -> str:
    progress = rank.progress or {}
    groups = ", ".join(f"{key[-6:]} {enqueued}/{completed}" for key, (enqueued, completed) in progress.items())
    parts = [
        f"rank {rank.rank}: {rank.state}, iteration {rank.iteration} for {rank.age_s:.0f} s of {rank.limit_s:.0f} s",
        f"process {rank.pid} {rank.process} {rank.busy:.0%} busy".replace("  ", " "),
        *([f"collectives enqueued/completed: {groups}"] if groups else []),
        *(f"{op.op} {op.number} {op.size}".rstrip() for op in rank.ops if not op.done),
    ]
    return "; ".join(parts)


def _stack_lines(stack: Stack) -> Iterator[str]:
    yield f"  thread {stack.thread or '(no name)'}{', which trains' if stack.trains else ''}"
    for frame in stack.frames:
        yield f"    {frame.function} ({frame.file}:{frame.line})"
