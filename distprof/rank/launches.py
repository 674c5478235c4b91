"""Finds the shards of the newest job: jobs with one name that run one after the other share a run folder.

The nodes of a job share no token that other jobs lack: a rendezvous id may stay the same for years.  So each launcher
has its own id, and the times show which launchers belong together.  Launchers of one job run at the same time: when a
node joins an elastic job, all ranks start again.  A launcher that started after the last sign of life of all others
belongs to a later job, if both have the same rank.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from distprof.rank import procfs
from distprof.records import Header

Shard = TypeVar("Shard")


def launch_of_this_process(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Returns an id and the start (ns, wall time) of the launch of a process that ``distprof run`` did not start.

    They are those of the parent process if that is torchrun or called ``multiprocessing``, else of this process.
    """
    import multiprocessing  # imported here, because only the rank side needs it

    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        pid = parent.pid
    else:
        pid = os.getppid() if "TORCHELASTIC_RUN_ID" in environment else os.getpid()
    began, tick = procfs.started_wall_ns(pid), procfs.started_tick(pid)
    return ("", 0) if began is None or tick is None else (f"{os.uname().nodename}-{pid}-{tick}", began)


@dataclass
class _Launch:
    """The times, ranks and clocks in the shards of one launch."""

    began_ns: int
    last_ns: int  # the last sign of life
    ranks: set[int] = field(default_factory=set)
    clocks: set[str] = field(default_factory=set)  # the domain of each, or the name of its host
    tokens: set[str] = field(default_factory=set)

    def add(self, other: _Launch) -> None:
        self.began_ns = min(self.began_ns, other.began_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.ranks |= other.ranks
        self.clocks |= other.clocks
        self.tokens |= other.tokens

    def may_share_job(self, later: _Launch) -> bool:
        """Whether ``later``, which by the clocks started after this launch ended, may be of the same job.

        The clocks of two hosts may disagree.
        """
        return not self.ranks & later.ranks and not self.clocks & later.clocks


def newest_job(shards: Sequence[Shard], seen: Callable[[Shard], tuple[Header, int]]) -> tuple[list[Shard], list[Shard]]:
    """Returns (the shards of the job that began last, the shards of earlier jobs).

    ``seen`` returns a shard's header, and when its writer is last known to have run (ns, wall time).  If a shard has no
    launch, all shards count as those of one job.
    """
    launches = _launches(map(seen, shards))
    if launches is None:
        return list(shards), []
    newest = _newest(_overlapping(launches))
    mine = [seen(shard)[0].launch in newest.tokens for shard in shards]
    return (
        [shard for shard, own in zip(shards, mine, strict=True) if own],
        [shard for shard, own in zip(shards, mine, strict=True) if not own],
    )


def _launches(shards: Iterable[tuple[Header, int]]) -> list[_Launch] | None:
    """Returns the launches in the order of their start; None if a shard has no launch."""
    found: dict[str, _Launch] = {}
    for header, last_ns in shards:
        if not header.launch:
            return None
        clock = header.clock_domain or header.host
        own = _Launch(header.launched_ns, max(header.wall_ns, last_ns), {header.rank}, {clock}, {header.launch})
        found.setdefault(header.launch, own).add(own)
    return sorted(found.values(), key=lambda launch: launch.began_ns)


def ran_apart(
    shards: Sequence[Shard], seen: Callable[[Shard], tuple[Header, int]]
) -> tuple[list[Shard], list[Shard]] | None:
    """Splits the shards of one job: (those that had ended when the others were launched, the others).

    Returns None if all ran at the same time, which is the rule.
    """
    together = _overlapping(_launches(map(seen, shards)) or [])
    if len(together) < 2:
        return None
    last = together[-1].tokens
    before = [shard for shard in shards if seen(shard)[0].launch not in last]
    return before, [shard for shard in shards if seen(shard)[0].launch in last]


def _overlapping(launches: Iterable[_Launch]) -> list[_Launch]:
    """Merges launches that ran at the same time."""
    jobs: list[_Launch] = []
    for launch in launches:
        if jobs and launch.began_ns <= jobs[-1].last_ns:
            jobs[-1].add(launch)
        else:
            jobs.append(launch)
    return jobs


def _newest(jobs: list[_Launch]) -> _Launch:
    """Returns the newest job, with all launches that may belong to it; an empty one if there are none."""
    newest = jobs.pop() if jobs else _Launch(0, 0)
    while jobs and jobs[-1].may_share_job(newest):
        newest.add(jobs.pop())
    return newest
