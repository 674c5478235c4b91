"""The waits of random gaps are those that a slow search of all pairs of a gap and a collective finds."""

from __future__ import annotations

from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distprof.merge.collectives import pending
from distprof.merge.collectives import waits as module
from distprof.merge.collectives.activity import Activity
from distprof.merge.collectives.channels import Channel
from distprof.merge.collectives.gaps import Gaps
from distprof.merge.collectives.join import JoinedEntries

MS = 1_000_000
#: (column, step, ordinal, enqueued, last, whether it is a message), and (column, step, identity, start, end, message).
Entry = tuple[int, int, int, int, int, bool]
Gap = tuple[int, int, int, int, int, int]


@st.composite
def jobs(draw: st.DrawFn) -> tuple[list[Entry], list[Gap]]:
    """Steps of several ranks that do about the same; some gaps wait for collectives, and some for messages."""
    ranks, steps = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    enqueues = sorted(draw(st.lists(st.integers(0, 15), max_size=4)))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    waits_for = [draw(st.integers(-2, len(enqueues) - 1)) for _ in lengths]  # by gap: of a collective, or of none
    is_message = [draw(st.integers(0, 3)) == 0 for _ in enqueues]
    entries: list[Entry] = []
    gaps: list[Gap] = []
    for step in range(steps):
        came = [1_000 * step + moment + draw(st.integers(0, 20)) for moment in enqueues]  # the last member
        for column in range(ranks):
            now, numbers = 1_000 * step, range(len(entries), len(entries) + len(enqueues))
            for ordinal, moment in enumerate(enqueues):
                enqueued = 1_000 * step + moment
                entries.append((column, step, ordinal, enqueued, max(came[ordinal], enqueued), is_message[ordinal]))
            for identity, (length, waited) in enumerate(zip(lengths, waits_for, strict=True)):
                end = now + length + draw(st.sampled_from([0, 0, 0, 3]))
                end = max(end, came[waited] + 1) if waited >= 0 else end
                message = numbers[waited] if waited >= 0 and is_message[waited] else -1
                gaps.append((column, step, identity, now, end, message))
                now = end
    order = sorted(range(len(entries)), key=lambda one: entries[one][:3])
    placed = {old: new for new, old in enumerate(order)} | {-1: -1}
    gaps.sort(key=lambda gap: (gap[0], gap[3]))
    return [entries[one] for one in order], [(*gap[:5], placed[gap[5]]) for gap in gaps]


def by_hand(entries: list[Entry], gaps: list[Gap]) -> dict[int, tuple[int, int]]:
    """Returns by gap (entry, wait), times in ms."""
    pairs = [
        (g, e)
        for g, gap in enumerate(gaps)
        for e, entry in enumerate(entries)
        if gap[:2] == entry[:2] and entry[3] <= gap[3] < entry[4] and not entry[5] and gap[5] < 0
    ]
    times: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for g, e in pairs:
        length, rest = gaps[g][4] - gaps[g][3], gaps[g][4] - entries[e][4]
        times.setdefault((gaps[g][2], entries[e][2]), []).append((length, rest))
    blocks = {}
    for kind, found in times.items():
        ended_before = sum(rest < 0 for _, rest in found)
        varies, most = pstdev(rest for _, rest in found), 1.5 * pstdev(length for length, _ in found) + 0.2
        mean, last_part = fmean(length for length, _ in found), fmean(rest**2 for _, rest in found) ** 0.5
        own = [[gap[4] - gap[3] for gap in gaps if (gap[0], gap[2]) == (rank, kind[0])] for rank in range(3)]
        shortest = min(sum(lengths) / 6 for lengths in own)
        assume(all(abs(x - y) > 1e-9 for x, y in ((varies, most), (last_part, 0.15 * mean), (shortest, 0.5 * mean))))
        ends_so = varies <= most or (last_part <= 0.15 * mean and shortest <= 0.5 * mean)
        blocks[kind] = ended_before <= 0.1 * len(found) and ends_so
    waits = {g: (gap[5], gap[4] - gap[3]) for g, gap in enumerate(gaps) if gap[5] >= 0}
    for g, e in pairs:
        came = entries[e][4]
        if blocks[gaps[g][2], entries[e][2]] and came <= gaps[g][4] and came - gaps[g][3] > waits.get(g, (0, 0))[1]:
            waits[g] = e, came - gaps[g][3]
    return waits


def joined(entries: list[Entry]) -> JoinedEntries:
    table = np.array(entries, np.int64).reshape(-1, 6)
    nothing = np.zeros(len(entries), np.int64)
    small = {name: table[:, at].astype(np.int32) for at, name in enumerate(("column", "step", "ordinal"))}
    return JoinedEntries(
        ranks=(0, 1, 2), iterations=tuple(range(6)), ops=("all_reduce",),
        channels=(Channel("0", (0, 1, 2), -1, -1, 0), Channel("0", (0, 1, 2), 0, 1, 0)),
        channel=table[:, 5].astype(np.int32),
        members_known=np.ones(2, bool),
        enqueued_ns=table[:, 3] * MS, last_ns=table[:, 4] * MS, op=nothing.astype(np.int32), number=nothing,
        last_here_ns=table[:, 4] * MS, last_error_ns=nothing,
        event=nothing, whole=nothing == 0, bytes=nothing, duration_ns=nothing, waited_from_ns=nothing,
        waited_until_ns=nothing, on_training_thread=nothing == 0, **small,
    )  # fmt: skip


def gaps_of(gaps: list[Gap], entries: int) -> Gaps:
    table = np.array(gaps, np.int64)
    column, step = (table[:, at].astype(np.int32) for at in (0, 1))
    return Gaps(
        column=column, step=step, owner=table[:, 2], turn=table[:, 2], part=table[:, 2], phase=step,
        start_ns=table[:, 3] * MS, end_ns=table[:, 4] * MS, message=table[:, 5],
        after_enqueue=np.full(entries, -1),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(jobs(), st.sampled_from([1, 4, 1_000_000]))
def test_waits_are_those_of_a_search_of_all_pairs(job: tuple[list[Entry], list[Gap]], at_once: int) -> None:
    """``at_once``: pairs that are looked at together."""
    entries, gaps = job
    expected = by_hand(entries, gaps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending, "_PAIRS_AT_ONCE", at_once)
        patch.setattr(pending, "_KINDS_AT_ONCE", at_once)
        table = np.array(gaps, np.int64)
        found = module.waits_in(
            Activity(joined(entries), gaps_of(gaps, len(entries)), table[:, 2], np.zeros(3, np.int64))
        )
    shown = zip(found.gap.tolist(), found.entry.tolist(), (found.wait_ns // MS).tolist(), strict=True)
    assert {gap: (entry, wait) for gap, entry, wait in shown} == expected
