"""Who stands out of a cohort: planted ranks do, and chance does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from distprof.merge.arrays import FloatArray
from distprof.merge.report import BOTH_WAYS
from distprof.merge.skew.excess import CohortExcess, cohort_excess
from distprof.merge.skew.step_times import FINE, MODULE, SUM, WHOLE, Place, StepTimes
from distprof.merge.skew.stragglers import (
    Outlier,
    detection_floor,
    finest_places,
    half_of_cohort,
    largest_excess,
    outliers,
)

MS = 1_000_000.0
ITERATION = 100 * MS
PLACE = Place("layers.0", "forward")


def excess_of(ms: object, places: Sequence[Place] = (PLACE,)) -> CohortExcess:
    """``ms``: (places, ranks, steps), or (ranks, steps) of the one place."""
    times = np.array(ms, np.float64) * MS
    times = times[None] if times.ndim == 2 else times
    return cohort_excess(StepTimes(tuple(range(times.shape[1])), np.arange(times.shape[2]), tuple(places), times))


def named(excess: CohortExcess) -> list[int]:
    return sorted({outlier.rank for outlier in outliers(excess, ITERATION)})


def noisy(seed: int, ranks: int, steps: int = 10, spread: float = 0.3, pauses: float = 0.1) -> FloatArray:
    """Returns times about 10 ms: ranks that differ a little for ever, and more from step to step; a share of the times
    has a pause.
    """
    random = np.random.default_rng(seed)
    own = 10 + random.normal(0, spread / 3, (ranks, 1)) + random.normal(0, spread, (ranks, steps))
    return own + (random.random((ranks, steps)) < pauses) * random.exponential(10, (ranks, steps))


@pytest.mark.parametrize("ranks", [3, 4, 8, 64])
def test_a_rank_that_loses_time_in_every_step_is_found_with_its_figures(ranks: int) -> None:
    times = noisy(1, ranks, spread=0.1)
    times[2] += 20
    (found,) = outliers(excess_of(times), ITERATION)
    assert (found.rank, found.place, found.cohort, found.of_steps) == (2, PLACE, ranks, 10)
    assert found.excess_ns == pytest.approx(20 * MS, rel=0.1)
    assert found.cohort_ns == pytest.approx(10 * MS, rel=0.1)
    assert found.steps >= 8


@pytest.mark.parametrize("ranks", [3, 4, 8, 16, 64])
def test_healthy_runs_name_nobody(ranks: int) -> None:
    # Each run has 20 places, as noisy as on a loaded machine: a tenth of the times has a pause, of 10 ms in the mean.
    false = 0
    for seed in range(300):
        times = np.stack([noisy(1000 * seed + place, ranks, spread=1.0) for place in range(20)])
        false += bool(named(excess_of(times, [Place(f"layers.{n}", "forward") for n in range(20)])))
    assert false <= 3, "1 % of the runs"


@pytest.mark.parametrize("ranks", [4, 8])
def test_a_planted_rank_is_found_in_nearly_every_noisy_run_and_nobody_else(ranks: int) -> None:
    right = wrong = 0
    for seed in range(300):
        times = noisy(seed, ranks, pauses=0.02)
        times[seed % ranks] += 8
        found = named(excess_of(times))
        right += found == [seed % ranks]
        wrong += bool(set(found) - {seed % ranks})
    assert (right >= 285, wrong) == (True, 0)


def test_below_the_share_of_an_iteration_nobody_is_slow() -> None:
    times = np.full((4, 10), 10.0)
    times[1] += 4.9
    assert named(excess_of(times)) == []
    times[1] += 0.2
    assert named(excess_of(times)) == [1]


@pytest.mark.parametrize(("slow_steps", "expected"), [(7, []), (8, [1])])
def test_a_slow_rank_is_slow_in_most_steps(slow_steps: int, expected: list[int]) -> None:
    times = np.full((4, 10), 10.0)
    times[1, :slow_steps] += 30
    assert named(excess_of(times)) == expected


def test_a_slow_rank_is_found_though_one_of_the_others_is_held_up_longer_in_each_step() -> None:
    times = np.full((8, 10), 10.0)
    times[1] += 8
    for step in range(10):
        times[(step % 7 + 2) % 8, step] += 30
    assert named(excess_of(times)) == [1]
    times[5, :3] += 30
    assert named(excess_of(times)) == [], "rank 5 takes longer in four of the ten steps"


def test_a_rank_whose_excess_is_no_larger_than_the_noise_of_the_others_is_not_slow() -> None:
    times = 50 + np.random.default_rng(5).normal(0, 20, (8, 10))
    times[3] += 12
    assert named(excess_of(times)) == []


def test_without_a_line_between_ranks_nobody_is_slow() -> None:
    times = np.full((8, 10), 10.0) + np.arange(8)[:, None] * 4
    assert named(excess_of(times)) == []


@pytest.mark.parametrize(("slow", "expected"), [([2, 6], [2, 6]), ([1, 2, 6], []), ([0, 1, 2, 3], [])])
def test_up_to_a_third_of_a_cohort_is_slow_together(slow: list[int], expected: list[int]) -> None:
    times = np.full((8, 10), 10.0)
    times[slow] += 30
    excess = excess_of(times)
    assert named(excess) == expected
    too_many = [outlier.rank for outlier in half_of_cohort(excess, ITERATION)]
    assert sorted(too_many) == ([] if expected else slow)


def test_two_ranks_may_be_slow_by_different_times() -> None:
    times = np.full((8, 10), 10.0)
    times[2] += 40
    times[5] += 15
    assert named(excess_of(times)) == [2, 5]


def test_of_two_ranks_more_is_asked() -> None:
    for added, slow_steps, expected in ((9.0, 10, []), (11.0, 10, [1]), (11.0, 8, []), (11.0, 9, [1])):
        times = np.full((2, 10), 10.0)
        times[1, :slow_steps] += added
        assert named(excess_of(times)) == expected, (added, slow_steps)


def test_the_remains_of_a_larger_cohort_are_no_pair() -> None:
    times = np.full((4, 10), np.nan)
    times[:2] = 10
    times[1] += 30
    assert named(excess_of(times)) == [], "only two of four ranks have the place"


def test_too_few_steps_name_nobody() -> None:
    times = np.full((4, 10), np.nan)
    times[:, :2] = 10.0
    times[1, :2] += 50
    assert named(excess_of(times)) == []


def test_the_finest_place_with_most_of_the_excess_is_given() -> None:
    fine, coarse, whole = PLACE, Place("forward", "forward", SUM), Place("throughout", "throughout", WHOLE)

    def place(*excesses: tuple[Place, float]) -> Place:
        times = {fine: 10.0, coarse: 40.0, whole: 100.0}
        (found,) = finest_places([Outlier(1, at, size, 10, 10, 4, times.get(at, 10.0)) for at, size in excesses])
        return found.place

    assert place((fine, 65.0), (coarse, 90.0), (whole, 100.0)) == fine
    assert place((fine, 30.0), (coarse, 70.0), (whole, 100.0)) == coarse
    assert place((fine, 30.0), (coarse, 45.0), (whole, 100.0)) == whole
    assert place((fine, 80.0), (Place("layers.1", "forward"), 90.0)).subject == "layers.1"


def test_a_module_is_the_place_both_ways_where_neither_direction_has_most_of_the_excess() -> None:
    forward, backward = Place("blocks.1", "forward"), Place("blocks.1", "backward")
    both = Place("blocks.1", BOTH_WAYS, MODULE)
    for lost, place in (((10, 10), both), ((16, 4), forward), ((2, 18), backward)):
        times = np.stack([noisy(seed, 4, spread=0.1, pauses=0) for seed in (1, 2)])
        times[:, 2] += np.array(lost)[:, None]
        excess = excess_of([*times, times.sum(axis=0)], [forward, backward, both])
        (found,) = finest_places([*outliers(excess, ITERATION)])
        assert (found.rank, found.place) == (2, place)


def test_a_module_is_the_place_of_an_excess_that_is_larger_in_a_noisy_sum() -> None:
    module = Outlier(1, PLACE, 36.0, 10, 10, 4, 10.0, error_ns=0.1)
    backward = Place("backward", "backward", SUM)

    def place(error_ns: float) -> Place:
        (found,) = finest_places([module, Outlier(1, backward, 66.0, 10, 10, 4, 40.0, error_ns)])
        return found.place

    assert place(error_ns=1.0) == backward, "36 of 66 ms"
    assert place(error_ns=11.0) == PLACE, "36 of at least 44 ms"


def test_a_phase_that_loses_no_more_than_its_share_is_not_the_place() -> None:
    backward, whole = Place("backward", "backward", SUM), Place("throughout", "throughout", WHOLE)

    def place(backward_ms: float, whole_ms: float) -> Place:
        """Of an iteration of 100 ms 60 are backward."""
        found = [Outlier(1, backward, backward_ms, 10, 10, 4, 60.0), Outlier(1, whole, whole_ms, 10, 10, 4, 100.0)]
        return finest_places(found)[0].place

    assert place(15.0, 25.0) == whole, "a quarter more in backward, and in everything"
    assert place(25.0, 25.0) == backward


def test_the_sum_shows_a_rank_that_is_a_little_slow_everywhere() -> None:
    random = np.random.default_rng(3)
    modules = 5 + random.normal(0, 0.1, (12, 4, 10))
    modules[:, 2] += 2
    places = [Place(f"layers.{n}", "forward") for n in range(12)] + [Place("forward", "forward", SUM)]
    found = list(outliers(excess_of(np.concatenate([modules, modules.sum(axis=0)[None]]), places), ITERATION))
    assert [(one.rank, one.place.subject) for one in found] == [(2, "forward")]
    assert found[0].excess_ns == pytest.approx(24 * MS, rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_a_rank_at_the_detection_floor_is_named_and_one_far_below_is_not(seed: int) -> None:
    times = noisy(seed, 6, spread=2.0)
    floor = detection_floor(excess_of(times), ITERATION, FINE)
    assert floor is not None and floor >= 0.05 * ITERATION
    assert named(excess_of(times)) == []
    # A rank whose times are exactly normal, so that all that it has above the others is what is planted.
    times[0] = np.median(times[1:], axis=0) + 1.02 * floor / MS
    assert named(excess_of(times)) == [0]
    times[0] -= 0.97 * floor / MS
    assert named(excess_of(times)) == []


def test_the_largest_excess_of_a_rank_needs_no_line_to_the_others() -> None:
    times = np.full((2, 4, 10), 10.0)
    times[1, 3] += 2
    found = largest_excess(excess_of(times, [PLACE, Place("layers.1", "backward")]), 3)
    assert found is not None and (found.place.subject, found.excess_ns) == ("layers.1", 2 * MS)
    assert largest_excess(excess_of(np.full((4, 10), 1.0)), 0) is None
