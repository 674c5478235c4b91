"""A link is slow where a group goes on late although all of its members came."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulated.job import Enqueue, Item, Program, SimulatedJob, Turn, Wait, Work
from support.synthetic import MS

from distprof.merge.analysis import start_analysis
from distprof.merge.collectives.gaps import Gaps
from distprof.merge.report import NOBODY_STANDS_OUT, NOT_ENOUGH, SLOW, SLOW_LINK, RankVerdict
from distprof.merge.skew.links import SlowLink, _disjoint, _next_sign, slow_link
from distprof.merge.skew.verdict import rank_verdict
from distprof.records import NO_ROW


def pairs(slow_pair: int, transfer_ms: float, late_rank: int = -1) -> Program:
    """Pairs (0, 1), (2, 3), ... exchange in every layer, which takes 2 ms, and longer on the link of one pair."""

    def program(rank: int, step: int) -> list[Item]:
        random = np.random.default_rng((rank, step))
        pair = rank // 2
        items: list[Item] = []
        for layer in (1, 2, 3):
            items += [Turn(layer, "forward"), Work(5 + random.random() + 10 * (rank == late_rank))]
            items += [Enqueue(f"tp{pair}"), Wait(), Work(2 + transfer_ms / 3 * (pair == slow_pair))]
        items += [Turn(~0, "backward"), Work(20), Enqueue("world"), Wait(), Work(1)]
        return [*items, Turn(NO_ROW, "optimizer"), Work(2)]

    return program


def found_in(program: Program, world: int) -> tuple[SlowLink | None, RankVerdict]:
    groups = {"world": tuple(range(world))} | {f"tp{n}": (2 * n, 2 * n + 1) for n in range(world // 2)}
    job = SimulatedJob(
        program, world, groups, sizes={"dp": world // 2, "tp": 2, "mp": 2},
        coordinates=lambda rank: {"dp": rank // 2, "tp": rank % 2, "mp": rank % 2},
    )  # fmt: skip
    analysis = start_analysis(job.run())
    return slow_link(analysis), rank_verdict(analysis)


def test_the_group_on_a_slow_link_is_named_instead_of_its_ranks() -> None:
    link, verdict = found_in(pairs(1, 12), 8)
    assert link is not None and (link.members, link.groups) == ((2, 3), 4)
    assert link.excess_ns == pytest.approx(12 * MS, rel=0.05)
    assert link.siblings_ns == pytest.approx(6 * MS, rel=0.05)
    assert (verdict.finding, verdict.named, verdict.cause, verdict.group) == (NOBODY_STANDS_OUT, (), SLOW_LINK, (2, 3))
    assert "ranks 2-3 (one tp group) take 12" in verdict.evidence


def test_a_slow_rank_is_no_slow_link() -> None:
    link, verdict = found_in(pairs(-1, 0, late_rank=3), 8)
    assert link is None
    assert (verdict.finding, [one.rank for one in verdict.named]) == (SLOW, [3])


def test_of_two_groups_none_is_named_and_the_reason_is_given() -> None:
    # An iteration takes about 50 ms: 4 ms are above 5 % of it and below 10 %.
    assert found_in(pairs(1, 4), 4)[0] is None
    link, verdict = found_in(pairs(1, 30), 4)
    assert link is not None and (link.members, link.groups) == ((2, 3), 2)
    assert (verdict.finding, verdict.named, verdict.cause, verdict.group) == (NOT_ENOUGH, (), "", ())
    assert verdict.reason.startswith("the collectives of ranks 2-3 (one tp group) take 30 ms longer")
    assert verdict.reason.endswith("where there are two groups only, so nobody is named")


def test_groups_that_share_ranks_are_no_siblings() -> None:
    """Of four ranks the tp groups, and those across them, have two members each: there are two groups of a kind."""
    groups = {(0, 1), (2, 3), (0, 2), (1, 3)}
    assert set(_disjoint(groups)) == {frozenset({(0, 1), (2, 3)}), frozenset({(0, 2), (1, 3)})}


def test_equal_links_are_not_slow() -> None:
    link, verdict = found_in(pairs(-1, 0), 8)
    assert link is None and verdict.cause == ""


def test_what_follows_a_wait_up_to_the_next_sign_of_life_belongs_to_the_message() -> None:
    """Of the gaps of a rank, 10 to 30 and 50 to 60: a wait that ends at 15 goes on at 30."""
    starts, ends = np.array([1, 10, 50], np.int64), np.array([2, 30, 60], np.int64)
    same, small = np.zeros(3, np.int64), np.zeros(3, np.int32)
    gaps = Gaps(
        column=small, step=small, owner=same, turn=same, part=same, phase=small, start_ns=starts, end_ns=ends,
        message=same - 1, after_enqueue=same - 1,
    )  # fmt: skip
    moments = np.array([5, 10, 15, 30, 59, 60], np.int64)
    assert _next_sign(gaps, np.array([1, 2]), moments).tolist() == [5, 30, 30, 30, 60, 60]
    assert _next_sign(gaps, np.zeros(0, np.int64), moments).tolist() == moments.tolist()
