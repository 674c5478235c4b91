"""What the hang watch found while the job ran."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class HangRow:
    """A time in which the job stood still."""

    kind: str  # "stuck outside a collective", "mismatched op or size", "deadlock", "missing rank", "rank dead", ...
    ranks: tuple[int, ...]  # those that kept the others waiting; empty where that is not known
    waiting: tuple[int, ...]  # those that waited
    iteration: int  # the one that stood still
    age_s: float  # how long it had run when the hang was found
    wall_ns: int  # when that was, wall time of the host that found it
    still_s: float | None  # from then until the job went on; None: it did not, as far as is known
    cause: str  # a sentence
    where: str  # what each rank did, in words
    evidence: tuple[str, ...] = ()  # further sentences, as from NCCL's RAS
