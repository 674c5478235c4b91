"""Routers of known skew, from records to the report: the right layer, expert and ep rank, measures equal to closed
forms, and what only single steps show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log

import numpy as np
import pytest
from support.reports import changed_report

from distprof.merge.report import ExpertLayerStats, Report
from distprof.records import ExpertLoad, Record

EXPERTS, EP, STEPS, FIRST = 8, 4, 12, 6  # the iteration of the first timed step
#: The loads of the skewed layer by expert in each step; another layer is balanced.
Loads = Callable[[int], np.ndarray]


def report(loads: Loads) -> Report:
    """Returns the report of a job whose second MoE layer has ``loads``; an ep rank hosts two experts that follow."""

    def change(rank: int, record: Record) -> Record:
        if not isinstance(record, ExpertLoad):
            return record
        own = loads(record.iteration - FIRST)[2 * rank : 2 * rank + 2]
        return replace(record, tokens=np.array([100, 100, *own], np.int64))

    return changed_report(change, dp=EP, ep=EP, layers=4, experts=EXPERTS, steps=STEPS, noise=0)


def skewed(loads: Loads) -> ExpertLayerStats:
    found = report(loads)
    assert found.expert_summary is not None
    worst = found.experts[found.expert_summary.worst_first[0]]
    assert worst.name == "blocks.3.moe"
    assert found.expert_summary.max_over_mean is not None
    assert found.expert_summary.max_over_mean.worst_layer == worst.name
    return worst


def violations(layer: ExpertLayerStats) -> tuple[float | None, ...]:
    assert layer.over_steps is not None
    return layer.over_steps.max_violation


def hot(expert: int, times: int) -> np.ndarray:
    return np.where(np.arange(EXPERTS) == expert, times * 100, 100)


def test_balanced_routers_have_no_worst_layer() -> None:
    found = report(lambda step: hot(0, 1))
    for layer in found.experts:
        assert layer.load is not None and layer.ep_load is not None
        one = layer.load
        assert (one.max_over_mean, one.max_violation, one.cv, one.entropy, one.gini) == pytest.approx((1, 0, 0, 1, 0))
        assert layer.ep_load.max_over_mean == 1 and set(violations(layer)) == {0.0}


def test_a_hot_expert() -> None:
    """Expert 5, of ep rank 2, has five times the tokens of each other one: 5 / 1.5 of the mean."""
    layer = skewed(lambda step: hot(5, 5))
    assert layer.load is not None and layer.ep_load is not None
    assert (layer.load.hottest, layer.ep_load.hottest) == (5, 2)
    assert layer.load.max_over_mean == pytest.approx(5 / 1.5, abs=1e-9)
    assert layer.load.cv == pytest.approx(4 * 7**0.5 / 12, abs=1e-9), "variance 16 * 7 / 64 of a mean of 1.5"
    shares = -(5 / 12 * log(5 / 12) + 7 / 12 * log(1 / 12)) / log(8)
    assert layer.load.entropy == pytest.approx(shares, abs=1e-9)
    assert layer.load.gini == pytest.approx(28 * 2 / (2 * 64 * 1.5), abs=1e-9), "7 pairs of 4 apart, both ways"
    assert layer.ep_load.max_over_mean == pytest.approx(6 / 3, abs=1e-9)


def test_a_hot_rank_whose_experts_are_alike() -> None:
    layer = skewed(lambda step: np.repeat((100, 300, 100, 100), 2))
    assert layer.ep_load is not None and layer.load is not None
    assert layer.ep_load.hottest == 1 and layer.ep_load.max_over_mean == pytest.approx(3 / 1.5)
    assert layer.load.hottest in (2, 3)


def test_zipf() -> None:
    """The share of expert i is that of 1 / (i + 1) ** 1.2."""
    weights = np.round(1e6 / np.arange(1, EXPERTS + 1) ** 1.2)
    layer = skewed(lambda step: weights)
    assert layer.load is not None and layer.ep_load is not None
    assert (layer.load.hottest, layer.load.coldest, layer.ep_load.hottest) == (0, 7, 0)
    harmonic = sum((number + 1) ** -1.2 for number in range(EXPERTS))
    assert layer.load.max_over_mean == pytest.approx(EXPERTS / harmonic, rel=1e-5)


def test_a_rotating_hot_expert_is_seen_in_single_steps() -> None:
    """Each expert is hot in turn: over 8 of the steps all have as many tokens, and 4 are hot once more."""
    layer = skewed(lambda step: hot(step % EXPERTS, 5))
    assert layer.load is not None and layer.load.max_over_mean == pytest.approx(20 / 18)
    assert violations(layer) == pytest.approx((5 / 1.5 - 1,) * STEPS)


def test_a_burst_is_seen_in_its_step() -> None:
    layer = skewed(lambda step: hot(6, 9) if step == 7 else hot(6, 1))
    assert violations(layer) == pytest.approx([9 / 2 - 1 if step == 7 else 0 for step in range(STEPS)])
    assert layer.load is not None and layer.load.hottest == 6


def test_a_dead_half() -> None:
    layer = skewed(lambda step: np.array([200, 0] * 4))
    assert layer.dead == (1, 3, 5, 7) and layer.over_steps is not None and layer.over_steps.dead == (4,) * STEPS
    assert layer.load is not None and layer.load.entropy == pytest.approx(log(4) / log(8), abs=1e-9)
    assert layer.load.gini == pytest.approx(0.5, abs=1e-9) and layer.ep_load is not None
    assert layer.ep_load.max_over_mean == 1, "each ep rank has one of them"


def test_a_drifting_router_has_a_trend() -> None:
    layer = skewed(lambda step: hot(3, 1 + step))
    assert layer.over_steps is not None and layer.over_steps.trend == 1
    assert violations(layer) == pytest.approx([(1 + step) * 8 / (8 + step) - 1 for step in range(STEPS)])
