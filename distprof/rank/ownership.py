"""Decides which process records a rank if several could: the one with the strongest claim.

A shard is its writer's claim to a rank, and its header has the evidence.  A process may run a model and be no rank,
although it inherits a rank's environment or knows of no other rank: the parent that starts ranks, or a process that a
rank starts to prepare data or to evaluate.  Such a process writes nothing if the rank already has a shard.  If it came
before the rank, the stronger claim counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from distprof.errors import DataError
from distprof.rank import procfs
from distprof.records import ALONE, CLAIMS, ENVIRONMENT, Header
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_header

#: The kernel's clock of process starts and the clock of a header may differ by this.
_SLACK_NS = 2_000_000_000
#: A shard is created and its header written in two steps: a reader that comes in between waits for this time.
_BEING_WRITTEN_S = 0.5


def claim_strength(claim: str) -> int:
    """Returns the strength of a claim to a rank.  An unknown claim of a newer distprof counts as a rank's."""
    return CLAIMS.index(claim if claim in CLAIMS else ENVIRONMENT)


def minimum_claim_strength(headers: Iterable[Header]) -> int:
    """Returns the least strength of a rank's claim in one job: processes with weaker claims are no ranks."""
    strongest = max((claim_strength(header.claim) for header in headers), default=0)
    return min(strongest, claim_strength(ENVIRONMENT))


def is_rank_taken(run: RunFolder, rank: int, claim: str, since_ns: int = 0) -> bool:
    """Whether another process has a stronger claim to the rank, or an equal claim and still runs.

    If both run and have equal claims, the process that started the other is the rank.  Two unrelated processes without
    a launcher are both ranks.  Processes that have ended, and began before this process's job was launched at
    ``since_ns`` (wall time), were of an earlier job.
    """
    own = claim_strength(claim)
    for header in _other_claims(run, rank):
        theirs = claim_strength(header.claim)
        if header.wall_ns < since_ns and not _is_running(header):
            continue
        if theirs > own or (theirs == own and _is_running(header) and _precedes_this_process(header)):
            return True
    return False


def _precedes_this_process(header: Header) -> bool:
    """Whether a running process with a claim as strong as this process's is the rank."""
    if header.claim == ALONE:
        return header.pid in procfs.ancestors(os.getpid())
    return os.getpid() not in procfs.ancestors(header.pid)


def was_claimed_since(run: RunFolder, rank: int) -> bool:
    """Whether another process on this machine has claimed the rank since this one was started."""
    began = procfs.started_wall_ns(os.getpid())
    return began is not None and any(
        _is_here(header) and header.wall_ns > began - _SLACK_NS for header in _other_claims(run, rank)
    )


def _other_claims(run: RunFolder, rank: int) -> Iterator[Header]:
    for path in run.shards_of(rank):
        header = _header_of(path)
        if header is not None and not (_is_here(header) and header.pid == os.getpid()):
            yield header


def _header_of(path: Path) -> Header | None:
    """Returns a shard's header, None without one.  Waits for a moment if it may be being written."""
    until = time.monotonic() + _BEING_WRITTEN_S
    while _was_just_created(path) and time.monotonic() < until:
        time.sleep(0.005)
    try:
        return read_header(path)
    except (DataError, OSError):
        return None


def _was_just_created(path: Path) -> bool:
    """Whether the shard is new and still empty."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == 0 and abs(time.time_ns() - found.st_mtime_ns) < _SLACK_NS


def _is_here(header: Header) -> bool:
    return header.host == os.uname().nodename


def _is_running(header: Header) -> bool:
    """Whether the writer still runs, and not a later process with the same number.  False for other machines."""
    began = procfs.started_wall_ns(header.pid) if _is_here(header) else None
    return began is not None and began < header.wall_ns + _SLACK_NS
