"""Two runs side by side: equal ones differ in nothing, and what differs is named with its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import collectives_of, report_of
from support.simulated.sides import JOB, changed_side, side
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analysis import start_analysis
from distprof.merge.diff.compare import compare
from distprof.merge.diff.data import INSIDE, LESS, MORE, UNKNOWN, Diff, Places
from distprof.merge.diff.levels import module_levels
from distprof.merge.diff.samples import Side, side_of
from distprof.merge.diff.text import render
from distprof.merge.load.run import run_of_shards
from distprof.records import Step, Tree


def figure(diff: Diff, name: str) -> Any:
    (found,) = [one for one in diff.figures if one.name == name]
    return found


def named(diff: Diff) -> list[tuple[str, str, str]]:
    return [(one.subject, one.phase, one.finding) for one in diff.places.changes if one.finding != INSIDE]


def side_with(changed: Callable[[Step], Step]) -> Side:
    """Returns a run whose steps are changed."""
    job = Job(**JOB, seed=1)
    every = [rank_records(job, rank) for rank in range(job.world)]
    shards = [shard_of(changed(one) if isinstance(one, Step) else one for one in records) for records in every]
    return side_of(start_analysis(run_of_shards(shards)))


def test_equal_runs_have_no_change_beyond_the_noise() -> None:
    wrong = 0
    for seed in range(1, 11):
        diff = compare(side(seed=0), side(seed=seed))
        assert (diff.setup, diff.work, diff.why_not) == ((), (), "")
        wrong += bool(named(diff) or diff.worse_by(0.0))
    assert wrong <= 1


def test_a_module_that_is_slower_is_found_and_named() -> None:
    diff = compare(side(), changed_side("head", 1.5))
    assert named(diff) == [("head", "forward", MORE)]
    (first, *_) = diff.places.changes
    assert first.low is not None and first.high is not None
    assert first.change == pytest.approx(0.5, abs=0.1) and first.low < 0.5 < first.high
    assert first.cost_ns == pytest.approx(0.5 * first.first_ns, rel=0.2)
    assert "slower: forward of head, +" in render(diff)
    back = compare(changed_side("head", 1.5), side())
    assert named(back) == [("head", "forward", LESS)]


def test_a_slower_machine_names_no_module_and_no_phase() -> None:
    def slow(step: Step) -> Step:
        return replace(
            step,
            forward_ns=step.forward_ns * 13 // 10,
            backward_ns=step.backward_ns * 13 // 10,
            phases_ns={phase: time * 13 // 10 for phase, time in step.phases_ns.items()},
            duration_ns=sum(time * 13 // 10 for time in step.phases_ns.values()),
        )

    diff = compare(side(), side_with(slow))
    assert named(diff) == []
    assert diff.places.common == pytest.approx(0.3, abs=0.03)
    iteration = figure(diff, "iteration, median")
    assert (iteration.finding, iteration.is_worse) == (MORE, True)
    assert iteration.change == pytest.approx(0.3, abs=0.03) and iteration.low < 0.3 < iteration.high
    rate = figure(diff, "throughput")
    assert (rate.finding, rate.is_worse) == (LESS, True) and rate.low < 1 / 1.3 - 1 < rate.high
    assert "all modules alike: +" in render(diff)


def test_a_phase_that_is_slower_is_named() -> None:
    def slow(step: Step) -> Step:
        more = step.phases_ns["optimizer"] // 2
        phases = {**step.phases_ns, "optimizer": step.phases_ns["optimizer"] + more}
        return replace(step, phases_ns=phases, duration_ns=step.duration_ns + more)

    assert named(compare(side(), side_with(slow))) == [("optimizer", "optimizer", MORE)]


def test_a_run_that_waited_for_processors_is_not_called_slower() -> None:
    slower = compare(side(), changed_side("head", 20.0))
    waiting = compare(side(), changed_side("head", 20.0, waited=0.8))
    for name in ("iteration, median", "iteration, mean", "throughput"):
        assert figure(slower, name).is_worse
        assert figure(waiting, name).finding == INSIDE
        assert figure(waiting, name).change == figure(slower, name).change


def test_too_few_steps_are_no_evidence() -> None:
    diff = compare(side(steps=5), side(steps=5, seed=3))
    assert figure(diff, "iteration, median").finding == UNKNOWN
    assert diff.worse_by(0.0) == ()
    assert "the noise is not known, so that no change can be called one" in render(diff)


def test_differences_of_set_up_are_named_and_times_of_other_work_are_not_judged() -> None:
    diff = compare(side(dp=2), side(dp=4))
    assert {(one.what, one.first, one.second) for one in diff.setup} >= {
        ("ranks", "2", "4"),
        ("topology", "dp 2", "dp 4"),
    }
    assert not figure(diff, "iteration, median").is_worse


def test_runs_of_other_kinds_are_not_compared() -> None:
    diff = compare(side(), side(mode="forward", counted=False))
    assert diff.why_not == "an iteration is training in the first run and forward in the second"
    assert (diff.figures, diff.places) == ((), Places())
    assert "the runs cannot be compared: an iteration is training" in render(diff)
    assert compare(side(), side(steps=0)).why_not == "the second run has no timed iteration"
    report = report_of(**JOB)
    modules = tuple(replace(row, name=f"other.{row.name}", label=f"other.{row.label}") for row in report.modules)
    other = compare(Side(report), Side(replace(report, modules=modules)))
    assert other.why_not.startswith("the models are different: 0 of ")


def test_changed_work_is_named() -> None:
    diff = compare(side(), side(layers=5))
    changed = {(one.module, one.what): (one.first, one.second) for one in diff.work}
    assert changed["blocks.4.attn.qkv", "params"][0] is None
    assert all(module.startswith("blocks.4") for module, _ in changed)
    experts = compare(side(), side(experts=8))
    assert {one.module for one in experts.work} and all(".moe" in one.module for one in experts.work)


def test_new_culprits_and_hot_experts_are_named() -> None:
    diff = compare(side(), side(slow_rank=2, slow_ms=60.0, hot=4.0))
    assert diff.verdict.new_slow_ranks == (2,)
    assert diff.verdict.new_hot_experts
    assert "slow ranks, second: rank 2: forward of blocks.1.moe.router" in render(diff)
    assert compare(side(slow_rank=2, slow_ms=60.0), side(slow_rank=2, slow_ms=60.0)).verdict.new_slow_ranks == ()


def test_collectives_are_beside_each_other() -> None:
    report = report_of(**JOB)
    both = collectives_of(4)
    with_them, with_one = (Side(replace(report, collectives=one)) for one in (both, replace(both, rows=both.rows[1:])))
    first, _ = compare(with_them, with_one).collectives
    assert (first.kind, first.op, first.first_calls, first.second_calls) == ("dp", "all_reduce", 12, None)
    assert (first.first_ns, first.cost_ns) == (30e6, -30e6)
    unseen = compare(with_them, Side(report))
    assert unseen.collectives == () and any("collectives are not compared: " in note for note in unseen.notes)


def test_a_report_without_steps_of_places_says_so() -> None:
    diff = compare(Side(report_of(**JOB)), side())
    assert diff.places.changes == () and "a report has no times step by step" in diff.places.why_not
    assert "modules are not compared: a report has no times step by step" in render(diff)
    assert diff.figures


def test_levels_are_quartiles_of_the_recorded_self_times() -> None:
    places = side().places
    assert places is not None
    levels = module_levels(places)
    job = Job(**JOB)
    rows = [row.name for one in rank_records(job, 0) if isinstance(one, Tree) for row in one.rows]
    steps = [one for one in rank_records(job, 3) if isinstance(one, Step)]
    times = [int(step.backward_ns[rows.index("blocks.2.attn")]) for step in steps]
    level, _ = levels.of([("blocks.2.attn", "backward")], [3])
    assert np.exp(level[0, 0]) == pytest.approx(np.percentile(times, 25), rel=0.02)  # the speed of steps is taken off
