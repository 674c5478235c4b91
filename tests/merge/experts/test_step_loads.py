"""Loads over the steps, and over the layers of a report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import report_of

from distprof.merge.experts.step_loads import over_steps
from distprof.merge.experts.summary import summarise


def test_a_rotating_hot_expert_is_seen_step_by_step_only() -> None:
    """Each expert is hot in turn: over all steps the loads are equal."""
    loads = np.full((8, 4), 10.0)
    for step in range(8):
        loads[step, step % 4] = 70
    found = over_steps(range(8), loads)
    assert found.max_violation == pytest.approx((70 / 25 - 1,) * 8)
    assert found.trend == 0 and found.dead == (0,) * 8 and found.fallen_asleep == ()


def test_a_burst_stands_out() -> None:
    loads = np.full((10, 4), 10.0)
    loads[6] = (40, 0, 0, 0)
    found = over_steps(range(10), loads)
    assert [step for step, one in enumerate(found.max_violation) if one] == [6]
    assert found.dead == (0, 0, 0, 0, 0, 0, 3, 0, 0, 0)


def test_balance_that_improves_has_a_trend() -> None:
    loads = np.array([[10.0 + 5 * (9 - step), 10, 10, 10] for step in range(10)])
    found = over_steps(range(10), loads)
    assert found.trend == -1
    assert found.entropy[0] is not None and found.entropy[-1] is not None and found.entropy[0] < found.entropy[-1]


def test_an_expert_that_falls_asleep_is_named() -> None:
    loads = np.full((10, 4), 10.0)
    loads[4:, 2] = 0
    loads[:, 3] = 0
    assert over_steps(range(10), loads).fallen_asleep == (2,), "expert 3 never had a token"


def test_steps_without_tokens_have_no_measure() -> None:
    found = over_steps(range(2), np.array([[0.0, 0.0], [1.0, 3.0]]))
    assert found.max_violation == (None, 0.5)


def report(**job: Any) -> Any:
    return report_of(noise=0, **job)


def test_a_report_has_all_measures() -> None:
    """Expert 1 gets five times the tokens of each other one."""
    found = report(dp=4, ep=4, layers=4, experts=4, steps=8, hot=5)
    first, _ = found.experts
    assert first.load.max_over_mean == first.max_over_mean == pytest.approx(5 / 2)
    assert (first.load.hottest, first.ep_load.hottest) == (1, 1)
    assert first.over_steps.max_violation == pytest.approx((1.5,) * 8)
    assert first.placement.max_over_mean == pytest.approx(first.placement.max_over_mean_now), "one expert a rank"
    assert found.expert_summary.layers == 2
    assert found.expert_summary.max_over_mean.worst == pytest.approx(2.5)
    assert found.expert_summary.max_over_mean.worst_layer == "blocks.1.moe"
    assert found.expert_summary.gini.p95 == pytest.approx(first.load.gini)
    assert found.expert_summary.cv.worst == pytest.approx(first.load.cv)
    assert found.expert_summary.drop_rate is None, "not known"
    assert found.expert_summary.cost_ns is None, "waits are not known"


def test_the_worst_entropy_is_the_smallest() -> None:
    (layer,) = report(dp=4, ep=4, layers=2, experts=4, steps=3, hot=5).experts
    assert layer.load is not None
    even = replace(layer, name="even", load=replace(layer.load, entropy=1.0))
    found = summarise([even] * 19 + [layer] + [even], None)
    assert found is not None and found.entropy is not None
    assert (found.entropy.p50, found.entropy.p95, found.entropy.worst) == (1.0, 1.0, layer.load.entropy)
    assert found.entropy.worst_layer == layer.name


def test_a_dense_model_has_no_summary() -> None:
    assert report(dp=2, layers=2, experts=0).expert_summary is None
