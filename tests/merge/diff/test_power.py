"""How often equal runs are called different, and how often a slower module is found, on runs with known noise.

Times are simulated as a busy machine makes them: each module has its own noise, each step of a rank its own speed that
lasts several steps, and some calls are interrupted for longer than they take.  Each process is a little different, by
where its memory lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from distprof.merge.arrays import FloatArray
from distprof.merge.diff.levels import Levels, module_levels
from distprof.merge.diff.modules import ModuleComparison, compare_modules
from distprof.merge.skew.step_times import Place, StepTimes

_SLOWER = 1
_LASTING = 0.7  # the correlation of the speeds of neighbouring steps


@dataclass(frozen=True)
class Noise:
    """Standard deviations, relative; ``interrupted`` is the share of calls that wait for a processor."""

    own: float = 0.04
    speed: float = 0.1
    process: float = 0.0
    run: float = 0.0  # of all ranks alike
    interrupted: float = 0.1


def run_of(
    rng: np.random.Generator, noise: Noise, *, modules: int = 12, ranks: int = 2, steps: int = 20, slower: float = 0.0
) -> StepTimes:
    """Returns the times of one run; module 1 takes ``slower`` more, as a share."""
    base = 1e6 * (1 + np.arange(modules) % 4)
    base[_SLOWER] *= 1 + slower
    own = rng.normal(0, noise.own, (modules, ranks, steps)) + rng.normal(0, noise.process, (modules, ranks, 1))
    own += rng.normal(0, noise.run, (modules, 1, 1))
    times = base[:, None, None] * np.exp(own + np.abs(speeds(rng, noise.speed, ranks, steps)))
    waits = rng.exponential(3e6, times.shape) * (rng.random(times.shape) < noise.interrupted)
    places = tuple(Place(f"layers.{module}", "forward") for module in range(modules))
    return StepTimes(tuple(range(ranks)), np.arange(steps), places, times + waits)


def speeds(rng: np.random.Generator, deviation: float, ranks: int, steps: int) -> FloatArray:
    """Returns (ranks, steps) of a first-order autoregression."""
    found = np.empty((ranks, steps))
    level = rng.normal(0, deviation, ranks)
    for step in range(steps):
        level = _LASTING * level + rng.normal(0, deviation * (1 - _LASTING**2) ** 0.5, ranks)
        found[:, step] = level
    return found


def levels_of(times: StepTimes) -> Levels:
    return module_levels([times])


def compared(first: StepTimes, second: StepTimes, kinds: int = 1) -> ModuleComparison:
    """Returns the comparison; modules are of so many classes in turn, and of a class each with 0."""
    return compared_runs([first], [second], kinds)


def compared_runs(first: list[StepTimes], second: list[StepTimes], kinds: int = 1) -> ModuleComparison:
    """Returns the comparison of repeated runs."""
    labels = [place.subject for place in first[0].places]
    classes = {label: f"Class{number % kinds}" if kinds else label for number, label in enumerate(labels)}
    return compare_modules([*map(levels_of, first)], [*map(levels_of, second)], (1e7, 1e7), classes)


def named(comparison: ModuleComparison) -> list[str]:
    """Returns the modules whose change is beyond the noise."""
    return [one.place[0] for one in comparison.changes() if one.bounds is not None and one.bounds.excludes_zero]


@pytest.mark.parametrize(
    ("noise", "shape", "kinds"),
    [
        (Noise(), {}, 1),
        (Noise(), {}, 0),
        (Noise(own=0.15, interrupted=0.4), {}, 1),
        (Noise(process=0.03), {}, 3),
        (Noise(process=0.02), {"ranks": 1, "steps": 10}, 1),
        (Noise(), {"modules": 5, "steps": 10}, 0),
        (Noise(), {"modules": 40, "ranks": 8, "steps": 10}, 3),
    ],
    ids=["busy", "of other classes", "very busy", "processes differ", "one rank", "few modules", "many of all"],
)
def test_equal_runs_are_rarely_called_different(noise: Noise, shape: dict[str, int], kinds: int) -> None:
    rng, pairs = np.random.default_rng(1), 100
    wrong = 0
    for _ in range(pairs):
        first, second = run_of(rng, noise, **shape), run_of(rng, noise, **shape)
        wrong += bool(named(compared(first, second, kinds)))
    assert wrong <= 0.05 * pairs  # nominal: 1 % of the pairs; of one rank 2 to 3 %, as steps do not show its process


def rates(noise: Noise, slower: float, pairs: int = 40, **shape: int) -> tuple[float, float, float]:
    """Returns (how often the slower module is found, how often another one is named, its bound)."""
    rng, found, others, bounds = np.random.default_rng(2), 0, 0, []
    for _ in range(pairs):
        comparison = compared(run_of(rng, noise, **shape), run_of(rng, noise, **shape, slower=slower))
        names = named(comparison)
        found += f"layers.{_SLOWER}" in names
        others += names not in ([], [f"layers.{_SLOWER}"])
        bounds.append(float(comparison.effects.bound[_SLOWER]))
    return found / pairs, others / pairs, float(np.median(bounds))


def test_power_rises_with_the_change_and_no_other_module_is_named() -> None:
    by_change = {slower: rates(Noise(), slower) for slower in (0.02, 0.05, 0.1, 0.2)}
    power = [found for found, _, _ in by_change.values()]
    assert power == sorted(power)
    assert power[0] <= 0.25 and by_change[0.1][0] >= 0.75 and by_change[0.2][0] == 1.0
    assert all(others <= 0.05 for _, others, _ in by_change.values())


def test_what_differs_on_all_ranks_of_a_run_alike_names_no_module() -> None:
    noise = Noise(own=0.01, speed=0.02, run=0.008, interrupted=0.0)
    found, others, _ = rates(noise, 0.1, modules=8, steps=100)
    assert found >= 0.8 and others <= 0.05


def test_repeated_runs_show_what_one_pair_does_not() -> None:
    noise, rng, pairs = Noise(own=0.01, speed=0.02, run=0.015, interrupted=0.0), np.random.default_rng(7), 40
    wrong, found = dict.fromkeys((1, 3, 5), 0), dict.fromkeys((1, 3, 5), 0)
    for repeated in wrong:
        for _ in range(pairs):
            first, second = ([run_of(rng, noise, modules=8) for _ in range(repeated)] for _ in range(2))
            slower = [run_of(rng, noise, modules=8, slower=0.1) for _ in range(repeated)]
            wrong[repeated] += bool(named(compared_runs(first, second)))
            found[repeated] += named(compared_runs(first, slower)) == [f"layers.{_SLOWER}"]
    assert wrong[3] <= 1 and wrong[5] <= 1, wrong
    assert found[5] >= found[3] >= 0.9 * pairs and found[3] > found[1], found


def test_a_change_above_the_stated_bound_is_found_and_one_far_below_is_not() -> None:
    for noise in (Noise(own=0.02, interrupted=0.0), Noise(), Noise(own=0.1), Noise(own=0.1, process=0.05)):
        _, _, bound = rates(noise, 0.1, pairs=15)
        above, below = rates(noise, float(np.expm1(1.6 * bound)))[0], rates(noise, float(np.expm1(0.3 * bound)))[0]
        assert above >= 0.8 and below <= 0.15, (noise, bound)


def test_a_machine_that_is_slower_as_a_whole_names_no_module() -> None:
    rng, wrong, common = np.random.default_rng(3), 0, []
    for _ in range(40):
        first, second = run_of(rng, Noise()), run_of(rng, Noise())
        comparison = compared(first, scaled(second, [1.3] * 12))
        wrong += bool(named(comparison))
        common.append(comparison.effects.common)
    assert wrong <= 2
    assert float(np.exp(np.median(common))) == pytest.approx(1.3, abs=0.05)


def scaled(times: StepTimes, factors: list[float]) -> StepTimes:
    """Returns the times with a factor for each module."""
    return StepTimes(times.ranks, times.iterations, times.places, times.times * np.array(factors)[:, None, None])


def test_a_class_that_is_slower_as_a_whole_is_named() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        second = scaled(run_of(rng, Noise(own=0.02)), [1.3, 1.0, 1.0] * 4)
        assert named(compared(run_of(rng, Noise(own=0.02)), second, kinds=3)) == [f"layers.{n}" for n in (0, 3, 6, 9)]


def test_a_busier_machine_that_slows_down_classes_unequally_names_none() -> None:
    rng, wrong = np.random.default_rng(6), 0
    for _ in range(20):
        second = scaled(run_of(rng, Noise()), [1.2, 1.3, 1.45] * 4)
        wrong += bool(named(compared(run_of(rng, Noise()), second, kinds=3)))
    assert wrong <= 1


def test_the_change_has_its_size() -> None:
    rng = np.random.default_rng(4)
    changes = []
    for _ in range(20):
        comparison = compared(run_of(rng, Noise()), run_of(rng, Noise(), slower=0.3))
        changes.append(float(comparison.effects.change[_SLOWER]))
    assert float(np.expm1(np.median(changes))) == pytest.approx(0.3, abs=0.04)
