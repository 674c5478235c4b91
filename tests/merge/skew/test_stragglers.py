"""Who is slow and who may only wait: nobody is picked out of a group by a hair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import report_of
from support.synthetic import MS, Job, in_memory

from distprof.merge.job.topology import job_topology
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Stragglers
from distprof.merge.skew.stragglers import find_stragglers
from distprof.merge.text.blocks.verdict import verdict

ROUTER, DISPATCH = ("moe.router", "forward"), ("moe.dispatch", "forward")


def suspects(table: dict[tuple[str, str], list[float]], **job: int) -> Stragglers | None:
    """``table``: by place the excess of each rank."""
    layout = job_topology(run_of_shards(in_memory(Job(steps=1, **job))))  # type: ignore[arg-type]
    excess = np.array(list(table.values()), np.float64)
    return find_stragglers(list(table), excess, list(layout.coordinates), layout)


def ranks(found: Stragglers | None) -> list[int]:
    return sorted(one.rank for one in found.ranks) if found else []


def test_one_rank_far_above_all_others_is_the_one() -> None:
    found = suspects({ROUTER: [0, 40, 0, 0, 3, 0, 0, 0]}, dp=8, ep=4)
    assert found is not None and ranks(found) == [1]
    assert (found.axis, found.likely) == ("", 1)


def test_ranks_of_one_group_that_are_as_slow_are_slow_together_and_the_one_that_does_not_wait_is_likely() -> None:
    found = suspects({ROUTER: [0, 39, 0, 0, 1, 0, 0, 0], DISPATCH: [40, 0, 39, 38, 0, 0, 1, 0]}, dp=8, ep=4)
    assert found is not None and ranks(found) == [0, 1, 2, 3]
    assert (found.axis, found.likely, found.ranks[0].rank) == ("ep", 1, 0)


def test_the_others_may_wait_less_than_the_worst_of_them_as_long_as_all_do() -> None:
    found = suspects({ROUTER: [0, 60, 0, 0, 0, 0, 0, 0], DISPATCH: [52, -20, 40, 35, 0, 0, 1, 0]}, dp=8, ep=4)
    assert found is not None and (ranks(found), found.likely) == ([0, 1], 1)
    one_works = suspects({ROUTER: [0, 60, 0, 0, 0, 0, 0, 0], DISPATCH: [52, -20, 40, 5, 0, 0, 1, 0]}, dp=8, ep=4)
    assert one_works is not None and (ranks(one_works), one_works.likely) == ([0, 1], None)


def test_where_all_are_slow_in_one_place_nobody_is_likely() -> None:
    found = suspects({DISPATCH: [40, 39, 39, 38, 0, 0, 0, 0]}, dp=8, ep=4)
    assert found is not None and (ranks(found), found.likely) == ([0, 1, 2, 3], None)


def test_of_a_group_of_two_nobody_is_likely() -> None:
    found = suspects({ROUTER: [0, 0, 40, 0], DISPATCH: [0, 0, 0, 39]}, dp=2, tp=2)
    assert found is not None and (ranks(found), found.axis, found.likely) == ([2, 3], "tp", None)


def test_a_rank_that_is_as_slow_in_another_group_is_a_case_of_its_own() -> None:
    found = suspects({ROUTER: [0, 40, 0, 0, 0, 39, 0, 0]}, dp=8, ep=4)
    assert ranks(found) == [1]


def test_in_a_group_of_the_whole_cohort_nobody_looks_slow_by_waiting() -> None:
    found = suspects({ROUTER: [0, 40, 0, 0, 0, 0, 0, 0], DISPATCH: [0, 0, 0, 39, 0, 0, 0, 0]}, dp=8, ep=8)
    assert found is not None and (ranks(found), found.likely) == ([1], 1)


def test_without_an_excess_there_is_nobody() -> None:
    assert suspects({ROUTER: [0, -1, 0, np.nan]}, dp=4) is None
    assert suspects({ROUTER: [np.nan] * 4}, dp=4) is None


@given(st.lists(st.floats(-50, 50), min_size=8, max_size=8))
def test_the_worst_is_always_among_them_and_they_share_a_group(row: list[float]) -> None:
    found = suspects({ROUTER: row}, dp=8, ep=4)
    if max(row) <= 0:
        assert found is None
    else:
        assert found is not None and found.ranks[0].excess_ns == max(row)
        assert len({one.rank // 4 for one in found.ranks}) == 1
        assert all(one.excess_ns >= 0.8 * max(row) for one in found.ranks)


@pytest.fixture(scope="module")
def words() -> str:
    report = report_of(dp=8, ep=4, slow_rank=1, waits_in="blocks.1.moe")
    return " ".join(verdict(report))


def test_a_slow_rank_in_a_small_ep_group_is_not_named_by_a_hair(words: str) -> None:
    assert words.startswith("slow together: ranks 0-3 (one ep group): 39.")
    assert "rank 1 in forward of blocks.1.moe.router, ranks 0, 2-3 in forward of blocks.1.moe;" in words
    assert "the cause is among them, most likely rank 1" in words
    assert "slowest:" not in words


def test_without_waiting_in_a_group_the_one_is_named() -> None:
    found = report_of(dp=8, ep=4, slow_rank=1).skew.suspects
    assert found is not None and ranks(found) == [1]
    assert found.ranks[0].excess_ns == pytest.approx(40 * MS, rel=0.01)


def test_a_rank_in_a_group_of_unknown_purpose_may_wait_for_the_others_of_it() -> None:
    layout = job_topology(run_of_shards(in_memory(Job(steps=1, dp=6))))
    excess = np.array([[0, 0, 40, 0, 0, 0], [1, 0, 0, 0, 0, 0]], np.float64)
    places, every = [ROUTER, ("data", "data")], list(range(6))
    found = find_stragglers(places, excess, every, layout, [(0, 1), (2, 3), (0, 2, 4)])
    assert found is not None and (ranks(found), found.likely, found.may_wait_for) == ([2], None, (0, 3, 4))
    alone = find_stragglers(places, excess[::-1], every, layout, [(0, 1), (2, 3)])
    assert alone is not None and (ranks(alone), alone.likely, alone.may_wait_for) == ([2], 2, ()), "it waits for data"
