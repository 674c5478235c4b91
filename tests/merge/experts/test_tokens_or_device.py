"""Tokens against time per ep rank: what makes ranks differ, of loads and devices that are planted."""

from __future__ import annotations

import numpy as np
import pytest

from distprof.merge.experts.tokens_or_device import saved_in_micro_batches, tokens_or_device
from distprof.merge.report import ONLY_DEVICE, ONLY_TOKENS, TOKENS_AND_DEVICE

STEPS = 12


def planted(
    random: np.random.Generator, ranks: int, fixed: float, *, hot: float = 1.0, slow: float = 1.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns times and tokens (ranks, steps), and what equal tokens save; times have noise of 3 %."""
    tokens, device = np.full((ranks, STEPS), 1000.0), np.ones((ranks, 1))
    tokens[random.integers(ranks)] *= hot
    device[random.integers(ranks)] *= slow
    tokens = random.poisson(tokens * random.lognormal(0, 0.02, tokens.shape)).astype(np.float64)

    def times(loads: np.ndarray) -> np.ndarray:
        noise: np.ndarray = random.lognormal(0, 0.03, tokens.shape)
        return device * (fixed * 1000 + (1 - fixed) * loads) * 1e4 * noise

    now, balanced = times(tokens), times(np.broadcast_to(tokens.mean(axis=0), tokens.shape))
    return now, tokens, float(np.median(now.max(axis=0) - balanced.max(axis=0)))


@pytest.mark.parametrize(
    ("cause", "hot", "slow"),
    [(ONLY_TOKENS, 2.5, 1.0), (ONLY_DEVICE, 1.0, 1.6), (TOKENS_AND_DEVICE, 2.5, 1.6), ("", 1, 1)],
)
def test_tokens_devices_and_both_are_told_apart_in_20_of_20(cause: str, hot: float, slow: float) -> None:
    random = np.random.default_rng(17)
    right, errors = 0, []
    for number in range(20):
        times, tokens, saved = planted(random, (4, 8)[number % 2], (0.0, 0.1, 0.3)[number % 3], hot=hot, slow=slow)
        found = tokens_or_device(times, tokens)
        assert found is not None
        right += found.cause == cause
        errors.append(abs(found.saved_by_equal_tokens_ns - saved) / times.max(axis=0).mean())
    assert right == 20
    assert max(errors) < 0.1


def test_of_two_ranks_tokens_are_preferred_if_they_explain_the_times() -> None:
    """Half of the time does not depend on tokens; a slow device of the rank with few tokens would look the same."""
    tokens = np.array([[1000.0] * 4, [3000.0] * 4])
    found = tokens_or_device(1e3 * (2000 + tokens), tokens)
    assert found is not None and (found.cause, found.slowness) == (ONLY_TOKENS, (1.0, 1.0))
    assert found.saved_by_equal_tokens_ns == pytest.approx(1e6, rel=0.05), "5 - 4 ms"


def test_steps_tell_two_ranks_apart_whose_tokens_change() -> None:
    random = np.random.default_rng(3)
    tokens = np.array([[1000.0], [3000.0]]) * random.lognormal(0, 0.3, (2, 20))
    found = tokens_or_device(tokens * [[2.0], [1.0]], tokens)
    assert found is not None and found.cause == TOKENS_AND_DEVICE
    assert found.slowness == pytest.approx((2.0, 1.0))


def test_an_ep_rank_without_tokens_takes_some_time() -> None:
    tokens = np.array([[0.0] * 5, [200.0] * 5, [100.0] * 5])
    found = tokens_or_device(1e4 + 1e4 * tokens, tokens)
    assert found is not None and found.cause == ONLY_TOKENS


def test_too_little_is_not_judged() -> None:
    times = np.full((2, 3), 1e6)
    assert tokens_or_device(times[:1], times[:1]) is None
    assert tokens_or_device(times[:, :2], times[:, :2]) is None
    assert tokens_or_device(times, np.zeros((2, 3))) is None
    assert tokens_or_device(times * np.nan, times) is None


def in_micro_batches(tokens: np.ndarray, fixed: float, device: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the times (ranks, steps) of tokens (steps, ranks, micro-batches), and what equal tokens would save."""
    number = tokens.shape[2]

    def times(loads: np.ndarray) -> np.ndarray:
        each: np.ndarray = device[:, None] * (fixed * 1000 / number + (1 - fixed) * loads) * 1e4
        return each

    now, balanced = times(tokens), times(np.broadcast_to(tokens.mean(axis=1, keepdims=True), tokens.shape))
    waits = now.max(axis=1).sum(axis=1) - balanced.max(axis=1).sum(axis=1)
    return now.sum(axis=2).T, float(np.median(waits))


@pytest.mark.parametrize(("fixed", "slow"), [(0.0, 1.0), (0.2, 1.0), (0.0, 1.6)])
def test_each_micro_batch_waits_for_its_slowest_rank(fixed: float, slow: float) -> None:
    """The hot rank is another one in each of four micro-batches, so that the sums of steps show little of it."""
    random = np.random.default_rng(5)
    tokens = np.full((STEPS, 4, 4), 150.0)
    for number in range(4):
        tokens[:, number, number] = 550.0
    tokens *= random.lognormal(0, 0.2, tokens.shape)
    tokens *= 1000 / tokens.sum(axis=2).mean()
    times, saved = in_micro_batches(tokens, fixed, np.array([1.0, 1.0, slow, 1.0]))
    sums = tokens.sum(axis=2).T
    fit = tokens_or_device(times, sums)
    assert fit is not None
    found = saved_in_micro_batches(times, sums, fit, [[one] for one in tokens])
    assert found == pytest.approx(saved, rel=0.05)
    assert fit.saved_by_equal_tokens_ns < 0.7 * saved


def test_what_micro_batches_cost_is_not_known_where_all_steps_are_equal() -> None:
    tokens = np.stack([[[900.0, 100.0], [100.0, 900.0]]] * STEPS)
    times, _ = in_micro_batches(tokens, 0.5, np.ones(2))
    sums = tokens.sum(axis=2).T
    fit = tokens_or_device(times, sums)
    assert fit is not None
    assert saved_in_micro_batches(times, sums, fit, [[one] for one in tokens]) is None


def test_one_micro_batch_is_its_step() -> None:
    times, tokens, _ = planted(np.random.default_rng(1), 4, 0.1, hot=2.5)
    fit = tokens_or_device(times, tokens)
    assert fit is not None
    found = saved_in_micro_batches(times, tokens, fit, [[step[:, None]] for step in tokens.T])
    assert found == pytest.approx(fit.saved_by_equal_tokens_ns)
