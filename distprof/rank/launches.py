"""Which start of which job a shard is of: jobs that share a name, one after the other, share a run folder.

No token is known to all nodes of a job alone: a rendezvous id may be fixed for years.  So each launcher has one of its
own, and the time tells which launchers belong together.  Those of one job run at the same time: whoever joins an
elastic one finds ranks that begin again beside its own.  A launcher that started after the last sign of life of all
others is of a later job, if both tell of the same rank.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from distprof.rank import procfs
from distprof.records import Header

Shard = TypeVar("Shard")


def launch_of_this_process(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """The launch that a process is of which no launcher of ours has started, and when that began (ns, wall).

    It is its parent's where that is torchrun or whoever called ``multiprocessing``, else its own.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        pid = parent.pid
    else:
        pid = os.getppid() if "TORCHELASTIC_RUN_ID" in environment else os.getpid()
    began, tick = procfs.started_wall_ns(pid), procfs.started_tick(pid)
    return ("", 0) if began is None or tick is None else (f"{socket.gethostname()}-{pid}-{tick}", began)


@dataclass
class _Launch:
    """What the shards of one launch tell of it."""

    began_ns: int
    last_ns: int  # the last sign of life
    ranks: set[int] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)

    def take(self, other: _Launch) -> None:
        self.began_ns = min(self.began_ns, other.began_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.ranks |= other.ranks
        self.hosts |= other.hosts
        self.tokens |= other.tokens

    def is_of_the_job_of(self, later: _Launch) -> bool:
        """Of two that did not run at the same time, as far as clocks tell, which those of two hosts may do badly."""
        return not self.ranks & later.ranks and not self.hosts & later.hosts


def newest_job(shards: Sequence[Shard], seen: Callable[[Shard], tuple[Header, int]]) -> tuple[list[Shard], list[Shard]]:
    """(the shards of the job that began last, those of earlier ones).

    ``seen`` gives a shard's header, and when its writer is last known to have run (ns, wall).  Where a shard does not
    say its launch, all are taken for one job's.
    """
    launches = _launches(map(seen, shards))
    if launches is None:
        return list(shards), []
    newest = _newest(_together(launches))
    mine = [seen(shard)[0].launch in newest.tokens for shard in shards]
    return (
        [shard for shard, own in zip(shards, mine, strict=True) if own],
        [shard for shard, own in zip(shards, mine, strict=True) if not own],
    )


def _launches(shards: Iterable[tuple[Header, int]]) -> list[_Launch] | None:
    """One each, by when they began; None where one is not told."""
    found: dict[str, _Launch] = {}
    for header, last_ns in shards:
        if not header.launch:
            return None
        own = _Launch(
            header.launched_ns, max(header.wall_ns, last_ns), {header.rank}, {header.host}, {header.launch}
        )  # fmt: skip
        found.setdefault(header.launch, own).take(own)
    return sorted(found.values(), key=lambda launch: launch.began_ns)


def ran_apart(
    shards: Sequence[Shard], seen: Callable[[Shard], tuple[Header, int]]
) -> tuple[list[Shard], list[Shard]] | None:
    """(those that had ended when the others were launched, these), of the shards of one job; mostly there are none."""
    together = _together(_launches(map(seen, shards)) or [])
    if len(together) < 2:
        return None
    last = together[-1].tokens
    before = [shard for shard in shards if seen(shard)[0].launch not in last]
    return before, [shard for shard in shards if seen(shard)[0].launch in last]


def _together(launches: Iterable[_Launch]) -> list[_Launch]:
    """Those that ran at the same time taken together."""
    jobs: list[_Launch] = []
    for launch in launches:
        if jobs and launch.began_ns <= jobs[-1].last_ns:
            jobs[-1].take(launch)
        else:
            jobs.append(launch)
    return jobs


def _newest(jobs: list[_Launch]) -> _Launch:
    """The newest, with all that may be of it; an empty one where there are none."""
    newest = jobs.pop() if jobs else _Launch(0, 0)
    while jobs and jobs[-1].is_of_the_job_of(newest):
        newest.take(jobs.pop())
    return newest
