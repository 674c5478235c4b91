"""Tests of the wait-for graph and of the verdicts, on evidence that is made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distprof.heartbeat.hang_file import DEAD, DEADLOCK, MISMATCH, MISSING, OUTSIDE, SLOW, UNKNOWN, Hang
from distprof.heartbeat.rank_look import OpLook
from distprof.launcher.daemon.hang_watch.evidence import (
    Members,
    NodeEvidence,
    RankEvidence,
    from_message,
    join,
    to_message,
)
from distprof.launcher.daemon.hang_watch.limits import limit_s
from distprof.launcher.daemon.hang_watch.verdict import judge
from distprof.launcher.daemon.hang_watch.wait_graph import wait_graph

#: Two tensor-parallel groups (rows) and two data-parallel ones (columns) of a grid of 2 x 2 ranks.
GRID = {
    "row0": Members("tp", (0, 1)),
    "row1": Members("tp", (2, 3)),
    "col0": Members("dp", (0, 2)),
    "col1": Members("dp", (1, 3)),
}
WORLD = {"all": Members("default_pg", (0, 1, 2, 3))}


def rank(
    number: int, progress: Mapping[str, tuple[int, int]] | None = None, *ops: OpLook, **changed: object
) -> RankEvidence:
    made = RankEvidence(
        number, "quiet", 100 + number, 7, age_s=90.0, limit_s=60.0, source="the rank", place="step (train.py:30)",
        process="S", progress=progress, ops=ops,
    )  # fmt: skip
    return replace(made, **changed)  # type: ignore[arg-type]


def call(group: str, number: int, op: str = "all_reduce", size: str = "Float[8]", *, done: bool = False) -> OpLook:
    return OpLook(group, number, op, size, done)


def waiting(
    number: int, group: str, op: str = "all_reduce", collective: int = 5, size: str = "Float[8]"
) -> RankEvidence:
    """A rank that has entered a collective which is not complete."""
    return rank(number, {group: (collective, collective - 1)}, call(group, collective, op, size))


def verdict(groups: Mapping[str, Members], *ranks: RankEvidence) -> Hang:
    hang = judge(NodeEvidence(ranks, groups))
    assert hang is not None
    return hang


def grid() -> NodeEvidence:
    """Rank 3 never entered its row: 2 waits in the row, 0 and 1 in their columns for 2 and 3."""
    return NodeEvidence(
        (
            rank(0, {"row0": (5, 5), "col0": (5, 4)}, call("col0", 5)),
            rank(1, {"row0": (5, 5), "col1": (5, 4)}, call("col1", 5)),
            rank(2, {"row1": (5, 4), "col0": (4, 4)}, call("row1", 5)),
            rank(3, {"row1": (4, 4), "col1": (4, 4)}, place="load_batch (train.py:41)"),
        ),
        GRID,
    )


def test_the_root_on_a_grid_is_the_rank_that_waits_for_nobody() -> None:
    assert wait_graph(grid()).edges == {0: {2}, 1: {3}, 2: {3}}
    hang = judge(grid())
    assert hang is not None and (hang.kind, hang.ranks, hang.waiting) == (OUTSIDE, (3,), (0, 1, 2))
    assert hang.cause == "rank 3 in load_batch (train.py:41), asleep; ranks 0-2 wait in all_reduce"
    assert hang.where == "ranks 0-2 in all_reduce, step (train.py:30); rank 3 in load_batch (train.py:41), asleep"


def test_nodes_join_on_the_members_of_groups() -> None:
    """Each node sends what it knows of its own ranks: neither alone can find the root."""
    whole = grid()
    parts = [
        NodeEvidence(whole.ranks[:2], {key: GRID[key] for key in ("row0", "col0", "col1")}),
        NodeEvidence(whole.ranks[2:], {key: GRID[key] for key in ("row1", "col0", "col1")}),
    ]
    sent = [from_message(msgpack.unpackb(msgpack.packb(to_message(part)))) for part in parts]
    assert sent == parts
    assert wait_graph(join(sent)).roots == (3,)
    alone = judge(parts[0])
    assert alone is not None and alone.kind == MISSING and alone.ranks == (2, 3)


def test_a_rank_that_is_asleep_waits_for_nobody_whatever_it_has_enqueued() -> None:
    """Rank 1 has enqueued an all_reduce without waiting for it, and sleeps; rank 0 waits for rank 1 elsewhere."""
    groups = {"a": Members("a", (0, 1)), "b": Members("b", (0, 1))}
    first = rank(0, {"a": (4, 4), "b": (5, 4)}, call("b", 5))
    second = rank(1, {"a": (5, 4), "b": (4, 4)}, call("a", 5))
    assert verdict(groups, first, second).kind == DEADLOCK
    hang = verdict(groups, first, replace(second, could_wait=False))
    assert (hang.kind, hang.ranks) == (OUTSIDE, (1,))


def test_opposite_order_is_a_deadlock() -> None:
    groups = {"a": Members("first", (0, 1)), "b": Members("second", (0, 1)), **WORLD}
    hang = verdict(
        groups,
        rank(0, {"a": (1, 0), "b": (0, 0), "all": (4, 4)}, call("a", 1)),
        rank(1, {"a": (0, 0), "b": (1, 0), "all": (4, 4)}, call("b", 1)),
        *(rank(number, {"all": (5, 4)}, call("all", 5)) for number in (2, 3)),
    )
    assert (hang.kind, hang.ranks, hang.waiting) == (DEADLOCK, (0, 1), (2, 3))
    assert "rank 0 for rank 1 in all_reduce (collective 1 of group first, ranks 0-1)" in hang.cause


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (waiting(3, "all", "broadcast"), "ranks 0-2 call all_reduce, rank 3 calls broadcast as collective 5"),
        (waiting(3, "all", size="Float[9]"), "rank 3 calls all_reduce of Float[9]"),
        # Its broadcast was sent, and it waits in the next collective.
        (rank(3, {"all": (6, 5)}, call("all", 5, "broadcast", done=True), call("all", 6)), "rank 3 calls broadcast"),
    ],
)
def test_mismatch(odd: RankEvidence, words: str) -> None:
    hang = verdict(WORLD, *(waiting(number, "all") for number in range(3)), odd)
    assert (hang.kind, hang.ranks) == (MISMATCH, (3,))
    assert words in hang.cause


def test_sizes_may_differ_where_each_rank_gives_what_it_has() -> None:
    hang = verdict(WORLD, *(waiting(n, "all", "all_gather", size=f"Float[{n}]") for n in range(4)))
    assert hang.kind == UNKNOWN and "all have entered it, and it does not complete" in hang.cause


@pytest.mark.parametrize(
    ("third", "kind", "words"),
    [
        (rank(3, state="dead", process=""), DEAD, "rank 3 died: process 103 has gone in iteration 7"),
        (rank(3, state="ended"), MISSING, "rank 3 left: the script ended after iteration 7"),
        (None, MISSING, "nothing is heard of rank 3"),
        (rank(3, process="T"), OUTSIDE, "stopped by a signal"),
        (rank(3, process="R", busy=0.99), OUTSIDE, "busy, and it holds Python's lock"),
        (rank(3, {"all": (4, 4)}, process="R", busy=0.99, place="f (a.py:3)"), OUTSIDE, "f (a.py:3), busy"),
        (rank(3, {"all": (4, 4)}, moved=True), SLOW, "slow, but moving"),
    ],
)  # fmt: skip
def test_the_kinds_of_a_root(third: RankEvidence | None, kind: str, words: str) -> None:
    others = [waiting(number, "all") for number in range(3)]
    hang = verdict(WORLD, *others, *([] if third is None else [third]))
    assert (hang.kind, hang.ranks) == (kind, (3,))
    assert words in hang.cause and "ranks 0-2 wait in all_reduce" in hang.cause


def test_the_limit_of_the_root_counts() -> None:
    others = [waiting(number, "all") for number in range(3)]
    saving = rank(3, {"all": (4, 4)}, phase="checkpoint", place="save (train.py:9)", limit_s=600.0)
    assert judge(NodeEvidence((*others, saving), WORLD)) is None
    late = verdict(WORLD, *others, replace(saving, age_s=601.0))
    assert late.kind == OUTSIDE and "in checkpoint: save (train.py:9)" in late.cause


def test_nobody_waits_and_all_go_on() -> None:
    moving = [rank(number, {"all": (4, 4)}, moved=True) for number in range(4)]
    assert judge(NodeEvidence(tuple(moving), WORLD)) is None
    still = verdict(WORLD, *(replace(one, moved=False) for one in moving))
    assert (still.kind, still.ranks) == (OUTSIDE, (0, 1, 2, 3))


def test_limits() -> None:
    assert limit_s(100, 200_000_000) == 60.0
    assert limit_s(100, 10_000_000_000) == 200.0
    assert limit_s(100, None, 2.0) == 2.0
    assert limit_s(0, None) == 300.0  # a first step of two minutes is no hang
    assert limit_s(100, None, phase="checkpoint") == limit_s(100, None, phase="evaluation") == 600.0


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 64) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=16) | st.dictionaries(st.sampled_from(["groups", "ranks"]), inner, max_size=2)
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["groups", "ranks"]), _ANY))
def test_what_is_no_evidence_is_refused(message: dict[str, object]) -> None:
    try:
        from_message(message)
    except ValueError:
        return
