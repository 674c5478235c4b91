"""The better placement of experts: fitted on half of the steps and judged on the other half."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from support.reports import report_of

from distprof.merge.experts.placement import better_placement, first_experts, fit
from distprof.merge.experts.summary import summarise
from distprof.merge.report import Placement
from distprof.merge.text.blocks.moe.findings import findings


def steps(*loads: list[float], times: int = 6) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(list(loads) * times)


def test_two_hot_experts_of_one_rank_are_parted() -> None:
    found = better_placement(steps([90.0, 80, 10, 20]), [0, 0, 1, 1], 2)
    assert found is not None
    assert found.max_over_mean_now == pytest.approx(170 / 100)
    assert found.max_over_mean == pytest.approx(1.0), "90 + 10 beside 80 + 20"
    assert found.ep_of_expert == (0, 1, 0, 1)


def test_each_rank_keeps_as_many_experts() -> None:
    loads = np.random.default_rng(0).zipf(1.5, 32).astype(np.float64)
    place = fit(loads, 8)
    assert np.bincount(place).tolist() == [4] * 8


def test_greedy_is_within_the_bound_of_the_best() -> None:
    """Against all ways to give 8 experts to 2 ranks; without the limit on their number, 4/3 is Graham's bound."""
    random = np.random.default_rng(1)
    for _ in range(20):
        loads = random.integers(1, 100, 8).astype(np.float64)
        best = min(
            max(loads[list(one)].sum(), loads.sum() - loads[list(one)].sum()) for one in combinations(range(8), 4)
        )
        greedy = max(np.bincount(fit(loads, 2), weights=loads))
        assert greedy <= 4 / 3 * best


def test_chance_is_not_taken_for_a_better_placement() -> None:
    """Loads differ from step to step, and no expert is hot: what was fitted is no better in the other steps."""
    loads = np.random.default_rng(2).poisson(100, (10, 16)).astype(np.float64)
    found = better_placement(loads, [expert // 4 for expert in range(16)], 4)
    assert found is not None and found.max_over_mean == pytest.approx(found.max_over_mean_now, abs=0.03)


def test_layers_where_another_placement_is_clearly_better_are_named_the_best_first() -> None:
    report = report_of(dp=4, ep=4, layers=4, experts=4, steps=8)
    found = [Placement((), 1.2, 1.15), Placement((), 1.3, 1.1), None, Placement((), 1.7, 1.0)]
    layers = tuple(replace(report.experts[0], name=str(place), placement=one) for place, one in enumerate(found))
    summary = summarise(layers, None)
    assert summary is not None and summary.better_placed == (3, 1)
    lines = list(findings(replace(report, experts=layers, expert_summary=summary)))
    assert "ep max/mean with other experts on each rank, as many as now: 3 1.70 -> 1.00, 1 1.30 -> 1.10" in lines


def test_where_nothing_is_said() -> None:
    hot = steps([9.0, 1, 1, 1], times=6)
    assert better_placement(hot[:3], [0, 0, 1, 1], 2) is None, "too few steps"
    assert better_placement(hot, [0, 0, 0, 0], 1) is None, "one ep rank"
    assert better_placement(hot, [0, 0, 0, 1], 2) is None, "unequal numbers of experts"
    assert better_placement(hot[:, :3], [0, 0, 1], 2) is None, "3 experts on 2 ranks"
    assert better_placement(np.where(hot == 9, np.nan, hot), [0, 0, 1, 1], 2) is None, "a load is not known"
    assert better_placement(0 * hot, [0, 0, 1, 1], 2) is None, "no tokens"


def test_the_experts_of_each_ep_rank_begin_where_its_coordinate_does() -> None:
    assert first_experts([0, 0, 1, 1, 2, 2], 3) == (2, 4)
    assert first_experts([1, 1, 0], 2) == (2,)
    assert first_experts([0, 1, 0, 1], 2) == (), "no rank has its own in a row"
    assert first_experts([0, 0, 0], 1) == ()
