"""The collectives of the timed steps: how many, how large, and how long ranks waited in them."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class CollectiveRow:
    """The collectives of one op in groups of one kind; figures of one rank in one iteration, means over the ranks that
    take part and over the timed steps.
    """

    kind: str  # the axis of the groups ("dp", "tp", "dp x tp", ...), "world", or torch's description of them
    op: str  # "all_reduce", ..., "send", "recv"
    groups: int  # how many groups of this kind were seen
    members: int  # of the largest group; 2 for send and recv
    calls: float  # in one iteration
    bytes: float | None  # of the larger of input and output; None where it was not seen
    own_ns: float | None  # the rest of the turns in which ranks wait; with the transfer, where that is not known
    wait_ns: float | None  # for the last member of the group; None where it was not seen
    transfer_ns: float | None  # from the arrival of the last member to completion; None where that was not seen
    bytes_per_second: float | None  # bytes / transfer
    share: float | None  # of the wait and the transfer in the median iteration of the job


@dataclass(frozen=True)
class Unentered:
    """A collective that some members of its group entered and others never did, although these ran later steps."""

    group: str  # torch's name
    kind: str  # axis of the group, as in CollectiveRow
    op: str  # as in CollectiveRow
    number: int  # torch's sequence number in the group
    iteration: int  # number of the iteration in which it was entered
    entered: tuple[int, ...]  # the ranks that entered it, ascending
    missing: tuple[int, ...]  # the ranks that never did, ascending


@dataclass(frozen=True)
class RankWait:
    """When one rank arrives at collectives, compared with the other members."""

    rank: int  # its number
    wait_ns: float  # in all collectives of one iteration, median over the timed steps
    lag_ns: float  # its arrival - the median arrival of the members, median over collectives
    last: int  # in how many collectives of all steps it was the last to arrive


@dataclass(frozen=True)
class Collectives:
    """The collectives of the job, and what is not known of them."""

    why_not: str  # a sentence where waits are not known, and verdicts use self times instead, else empty
    ranks: int  # ranks that recorded their collectives
    steps: int  # timed steps
    rows: tuple[CollectiveRow, ...] = ()  # the longest wait first
    waits: tuple[RankWait, ...] = ()  # by rank
    unentered: tuple[Unentered, ...] = ()  # collectives that some members never entered
    unjoined: int = 0  # entries in groups whose members are not known: waits in them count as the rank's own time
    lost: int = 0  # entries that were overwritten before they were read, on all ranks
    source: str = ""  # how collectives were seen, in words
    message_source: str = ""  # how sends and receives were seen, in words
    message_unseen: str = ""  # why sends and receives are not among them
