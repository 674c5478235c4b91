"""The collectives of the timed steps: how many, how large, who waited in them, and for whom."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CollectiveRow:
    """The collectives of one op in groups of one kind; amounts are of one iteration, means over the ranks that take
    part and over the timed steps.
    """

    kind: str  # the axis of the groups ("dp", "tp", "dp x tp", ...), "world", or torch's description of them
    op: str  # "all_reduce", ..., "send", "recv"
    groups: int
    members: int  # of the largest group; 2 for send and recv
    calls: float
    bytes: float | None  # of the larger of input and output; None where it was not seen
    own_ns: float | None  # of the modules and phases that enqueue them: their time without waiting for members
    wait_ns: float | None  # for the last member; None where it was not seen
    transfer_ns: float | None  # after the last member came, until completion; None where completion was not seen
    bytes_per_second: float | None  # bytes / transfer
    share: float | None  # of the wait and the transfer in the iteration


@dataclass(frozen=True)
class Unentered:
    """A collective that some members of its group entered and others never did, though they ran later steps."""

    group: str  # torch's name
    kind: str
    op: str
    number: int  # torch's sequence number in the group
    iteration: int
    entered: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class RankWait:
    """How one rank meets the others; times of one iteration, medians over the timed steps."""

    rank: int
    wait_ns: float  # for ranks that came later
    lag_ns: float  # median over collectives of (its arrival - the median arrival of the members)
    last: int  # of so many collectives it came last, in all steps


@dataclass(frozen=True)
class Collectives:
    """``why_not`` is the reason, a sentence, where waits are not known; then verdicts rest on self times."""

    why_not: str
    ranks: int  # that recorded their collectives
    steps: int
    rows: tuple[CollectiveRow, ...] = ()  # the largest wait first
    waits: tuple[RankWait, ...] = ()  # by rank
    unentered: tuple[Unentered, ...] = ()
    lost: int = 0  # entries that were overwritten before they were read, on all ranks
    source: str = ""
    message_source: str = ""
    message_unseen: str = ""  # why sends and receives are not among them
