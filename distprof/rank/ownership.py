"""Which process speaks for a rank where several could: the one with the best reason to be that rank.

A shard is its writer's claim, and its header says what the claim rests on.  Many a process of a job runs a model and is
no rank, although it inherits a rank's environment or knows of no other rank: the parent that starts ranks, what a rank
starts to prepare data or to evaluate.  Where a rank is spoken for, such a process writes nothing; where it came before
the rank, the better claim holds.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from distprof.errors import DataError
from distprof.rank import procfs
from distprof.records import ALONE, CLAIMS, ENVIRONMENT, Header
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_header

#: What the kernel's clock of process starts and the clock of a header may differ by.
_SLACK_NS = 2_000_000_000
#: A shard is created and its header written in two steps: whoever sees it in between looks again for so long.
_BEING_WRITTEN_S = 0.5


def claim_strength(claim: str) -> int:
    """Of two claims to a rank the one with more holds.  A claim that a newer distprof knows is taken for a rank's."""
    return CLAIMS.index(claim if claim in CLAIMS else ENVIRONMENT)


def minimum_claim_strength(headers: Iterable[Header]) -> int:
    """Of the claims of one job: weaker ones are those of processes beside its ranks."""
    strongest = max((claim_strength(header.claim) for header in headers), default=0)
    return min(strongest, claim_strength(ENVIRONMENT))


def is_rank_taken(run: RunFolder, rank: int, claim: str, since_ns: int = 0) -> bool:
    """Whether another process has a stronger claim to the rank, or a claim as strong and lives.

    Of two that live and are equals, the one that started the other is the rank.  Of two that run by themselves and have
    nothing to do with one another, each is one.  Those that have ended, and had begun before this process's job was
    launched at ``since_ns`` (wall time), were of an earlier job.
    """
    own = claim_strength(claim)
    for header in _of_others(run, rank):
        theirs = claim_strength(header.claim)
        if header.wall_ns < since_ns and not _lives(header):
            continue
        if theirs > own or (theirs == own and _lives(header) and _comes_before_us(header)):
            return True
    return False


def _comes_before_us(header: Header) -> bool:
    """Of a process that lives and whose claim is as strong as ours."""
    if header.claim == ALONE:
        return header.pid in procfs.ancestors(os.getpid())
    return os.getpid() not in procfs.ancestors(header.pid)


def was_claimed_since(run: RunFolder, rank: int) -> bool:
    """Whether another process on this machine has claimed the rank since this one was started."""
    began = procfs.started_wall_ns(os.getpid())
    return began is not None and any(
        _is_here(header) and header.wall_ns > began - _SLACK_NS for header in _of_others(run, rank)
    )


def _of_others(run: RunFolder, rank: int) -> Iterator[Header]:
    for path in run.shards_of(rank):
        header = _header_of(path)
        if header is not None and not (_is_here(header) and header.pid == os.getpid()):
            yield header


def _header_of(path: Path) -> Header | None:
    """None where there is none, not even a moment later if it may be being written now."""
    until = time.monotonic() + _BEING_WRITTEN_S
    while _was_just_created(path) and time.monotonic() < until:
        time.sleep(0.005)
    try:
        return read_header(path)
    except (DataError, OSError):
        return None


def _was_just_created(path: Path) -> bool:
    """And nothing has been written to it yet."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == 0 and abs(time.time_ns() - found.st_mtime_ns) < _SLACK_NS


def _is_here(header: Header) -> bool:
    return header.host == socket.gethostname()


def _lives(header: Header) -> bool:
    """Whether its writer still runs, not some later process with the same number; of other machines: no."""
    began = procfs.started_wall_ns(header.pid) if _is_here(header) else None
    return began is not None and began < header.wall_ns + _SLACK_NS
