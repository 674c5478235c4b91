"""Which entries of different ranks belong together: those of one channel and number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from support.simulated.job import Enqueue, Item, SimulatedJob, Turn, Wait, Work

from distprof.clock import Anchor
from distprof.merge.analysis import start_analysis
from distprof.merge.arrays import IntArray
from distprof.merge.clock.offsets import HostClock, RankClock
from distprof.merge.collectives.channels import Channels, Ends, join
from distprof.merge.collectives.section import collectives_section
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import ONE_OF, SLOW
from distprof.merge.skew.verdict import rank_verdict
from distprof.merge.trace.meetings import Meetings
from distprof.records import Collectives, CollectiveWindow, Group, Record

#: (group, op, peer, tag)
Entry = tuple[str, str, int, int]


def channels_of(channels: Channels, rank: int, entries: Sequence[Entry], **members: tuple[int, ...]) -> list[int]:
    groups, ops = sorted({entry[0] for entry in entries}), sorted({entry[1] for entry in entries})
    columns = [(groups.index(group), ops.index(op), peer, tag) for group, op, peer, tag in entries]
    ends = Ends(groups, ops, *np.array(columns, np.int32).T)
    return channels.of_entries(rank, ends, members).tolist()


def test_a_channel_is_a_group_by_name_and_members_or_the_messages_of_a_pair() -> None:
    channels, world, half = Channels(), (0, 1, 2, 3), (0, 1)
    first = channels_of(channels, 0, [("g", "all_reduce", -1, 0), ("h", "all_reduce", -1, 0)], g=world, h=world)
    other = channels_of(channels, 1, [("h", "barrier", -1, 0), ("g", "all_reduce", -1, 0)], g=world, h=half)
    assert other[1] == first[0] and other[0] not in first, "h is another group there"
    sent = channels_of(channels, 0, [("g", "send", 1, 0), ("g", "send", 1, 7), ("g", "recv", 1, 0)], g=world)
    got = channels_of(channels, 1, [("g", "recv", 0, 0), ("g", "recv", 0, 7), ("g", "send", 0, 0)], g=world)
    assert sent == got and len(set(sent)) == 3
    assert channels.sizes.tolist() == [4, 4, 2, 2, 2, 2]


def test_groups_whose_members_are_not_known_are_not_joined() -> None:
    channels = Channels()
    own = [channels_of(channels, rank, [("g", "all_reduce", -1, 0)]) for rank in (0, 1)]
    assert own == [[0], [1]] and channels.sizes.tolist() == [0, 0]
    assert channels_of(channels, 0, [("g", "all_reduce", -1, 0)], g=(0,)) == [2], "a group of one rank is another one"


def test_entries_of_one_channel_and_number_are_joined() -> None:
    channel, number, moments = (np.array(column, np.int64) for column in ([0, 1, 0, 0], [5, 5, 5, 6], [10, 20, 30, 40]))
    found = join(channel, number, moments)
    assert found.of_entry.tolist() == [0, 2, 0, 1]
    assert (found.channel.tolist(), found.last_ns.tolist(), found.entries.tolist()) == (
        [0, 0, 1],
        [30, 40, 20],
        [2, 1, 1],
    )


def pairs(rank: int, step: int) -> list[Item]:
    """Rank 3 takes 30 ms longer, and rank 2 waits for it in a group of the two; the others wait at the end."""
    random = np.random.default_rng((rank, step))
    items: list[Item] = [Turn(1, "forward"), Work(20 + 30 * (rank == 3) + random.random())]
    items += [Turn(2, "forward"), Work(2), Enqueue(f"pair{rank // 2}"), Wait(), Work(2)]
    return [*items, Turn(~0, "backward"), Work(20), Enqueue("world"), Wait(), Work(1)]


def job(*, known: bool) -> LoadedRun:
    groups = {"world": tuple(range(8))} | {f"pair{n}": (2 * n, 2 * n + 1) for n in range(4)}
    run = SimulatedJob(pairs, 8, groups).run()
    ranks = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        seen = window.collective_window
        assert seen is not None
        groups_known = tuple(group for group in seen.groups if known or group.name == "world")
        window = replace(window, collective_window=replace(seen, groups=groups_known))
        ranks.append(replace(data, windows={key: window}))
    return replace(run, ranks=tuple(ranks))


def test_collectives_of_unknown_groups_are_counted_and_their_waits_may_be_work() -> None:
    known, unknown = (start_analysis(job(known=value)) for value in (True, False))
    assert (collectives_section(known).unjoined, collectives_section(unknown).unjoined) == (0, 80)
    assert (rank_verdict(known).finding, [one.rank for one in rank_verdict(known).named]) == (SLOW, [3])
    found = rank_verdict(unknown)
    assert (found.finding, sorted(one.rank for one in found.named)) == (ONE_OF, [2, 3])


def moment(name: str, number: int, enqueued_ns: int, peer: int = -1, op: str = "all_reduce", window: int = 0) -> Record:
    one: IntArray = np.array([0], np.int64)
    return Collectives(
        5, "training", group_names=(name,), ops=(op,), group=one, op=one, number=one + number, peer=one + peer, tag=one,
        enqueued_ns=one + enqueued_ns, input_bytes=one, output_bytes=one, thread=one, window=window,
    )  # fmt: skip


def test_a_trace_joins_as_the_verdict_does() -> None:
    clock = RankClock(Anchor(0, 0), HostClock(), Anchor(0, 0))
    meetings = Meetings(2)
    for rank in (0, 1):
        windows = [CollectiveWindow(groups=(Group("0", "all", ()),), window=number) for number in (0, 1)]
        op, peer = ("send", 1) if rank == 0 else ("recv", 0)
        entries = [moment("0", 3, 10 + rank), moment("passing", 1, 20), moment("0", 0, 30, peer, op)]
        later = moment("0", 0, 40 - rank, peer, op, window=1)
        meetings.add(rank, [*windows, *entries, later], clock)
    first, second = ([one for (one,) in meetings.of(rank)] for rank in (0, 1))
    assert [one.members for one in first] == [2, 1, 2, 2]
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, False, True, True]
    assert len({one.number for one in first}) == 4, "a message of another window is another one"
    assert [(one.last_ns, one.last_rank) for one in first] == [(11, 1), (20, 0), (30, 0), (40, 0)]
    assert all(one.comparable for one in first)
    assert meetings.of(7) == []
