"""Chooses the shard that speaks for each rank, for the report and for the last line of a job alike.

shards of all files -> those of the job that began last -> the strongest claims to each rank -> the newest with data
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from distprof.rank.launches import newest_job
from distprof.rank.ownership import claim_strength, minimum_claim_strength
from distprof.records import Header


class Candidate(Protocol):
    """What the choice needs to know about a shard."""

    @property
    def header(self) -> Header: ...

    @property
    def source(self) -> str:
        """The name of its file, without the folder."""

    @property
    def has_data(self) -> bool:
        """Whether it has an iteration that was counted or timed."""

    @property
    def last_ns(self) -> int:
        """When its writer is last known to have run (wall time)."""


Shard = TypeVar("Shard", bound=Candidate)


@dataclass
class Selection(Generic[Shard]):
    """All shards, by what becomes of them; each list but the first two is ordered by rank."""

    job: list[Shard]  # the shards of the job that began last
    earlier: list[Shard]  # the shards of jobs before it with the same name
    world_size: int = 0
    run_id: str = ""
    chosen: list[Shard] = field(default_factory=list)  # one for each rank that left a shard
    passed_over: list[Shard] = field(default_factory=list)  # other generations of the chosen ranks
    outside: list[Shard] = field(default_factory=list)  # of ranks that the job no longer has
    beside: list[Shard] = field(default_factory=list)  # of processes that are no ranks


def select_shards(candidates: Sequence[Shard]) -> Selection[Shard]:
    """Chooses a shard for each rank.  World size and run id are those of the newest shard with the strongest claim."""
    found = Selection(*newest_job(candidates, lambda shard: (shard.header, shard.last_ns)))
    if not found.job:
        return found
    newest = max(found.job, key=lambda shard: (claim_strength(shard.header.claim), _age(shard)))
    found.world_size, found.run_id = newest.header.world_size, newest.header.run_id
    minimum = minimum_claim_strength(shard.header for shard in found.job)
    ordered = sorted(found.job, key=lambda shard: (shard.header.rank, _precedence(shard)))
    for _, generations in groupby(ordered, key=lambda shard: shard.header.rank):
        _add_rank(found, list(generations), minimum)
    return found


def _add_rank(found: Selection[Shard], generations: list[Shard], minimum: int) -> None:
    """Sorts the shards of one rank, which come in the order of their precedence, into ``found``."""
    best = generations[-1]
    needed = max(minimum, claim_strength(best.header.claim))
    equals = [shard for shard in generations if claim_strength(shard.header.claim) >= needed]
    found.beside.extend(shard for shard in generations if claim_strength(shard.header.claim) < needed)
    if best.header.rank >= found.world_size:
        found.outside.extend(equals)
    elif equals:
        found.chosen.append(best)
        found.passed_over.extend(equals[:-1])


def _precedence(shard: Shard) -> tuple[int, bool, tuple[int, int, str]]:
    """The shard of a rank that has most of this speaks for it."""
    return claim_strength(shard.header.claim), shard.has_data, _age(shard)


def _age(shard: Shard) -> tuple[int, int, str]:
    return shard.header.generation, shard.header.wall_ns, shard.source
