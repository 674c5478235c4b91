"""Warm-up iterations in the report: means over ranks, only of whole iterations, and marked as what they are."""

from __future__ import annotations

from dataclasses import replace

from support.reports import changed_report, report_of
from support.synthetic import MS, WARMUP, Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render, render_first_page
from distprof.records import FORWARD, TRAINING, Counts, End, ExpertLoad, Plan, Record, Step, WarmupStep


def warm(iteration: int, restarts: int = 0, mode: str = TRAINING, **phases_ms: int) -> WarmupStep:
    phases = {phase: ms * MS for phase, ms in phases_ms.items()}
    return WarmupStep(iteration, mode, 1_000 + iteration, sum(phases.values()), phases, restarts)


def only_warm_up(rank: int, record: Record) -> Record | None:
    """Makes a script of three iterations of the timed ones of a job."""
    if isinstance(record, Plan):
        return replace(record, timed=10)
    if isinstance(record, Step):
        number = record.iteration - WARMUP - 1
        phases = {phase: time * (3 - number) * (1 + rank) for phase, time in record.phases_ns.items()}
        return WarmupStep(number, record.mode, record.start_wall_ns, sum(phases.values()), phases)
    if isinstance(record, End):
        return End("exit", 3)
    return None if isinstance(record, Counts | ExpertLoad) else record


def with_warm_up(*steps: WarmupStep) -> Report:
    """Returns the report of two ranks, of which the first has these records, too."""
    job = Job(layers=2)
    header, *others = rank_records(job, 0)
    first: list[Record] = [header, *steps, *others]
    return analyse(run_of_shards([shard_of(first), shard_of(rank_records(job, 1))]))


def test_a_row_is_the_mean_over_the_ranks_that_saw_it() -> None:
    report = changed_report(only_warm_up, dp=2, steps=3, noise=0.0)
    assert [row.iteration for row in report.warmup] == [0, 1, 2]
    timed = report_of(dp=2, steps=3, noise=0.0)
    base = {phase: times for phase, times in timed.ranks[0].phases_ns.items() if times}
    for number, row in enumerate(report.warmup):
        assert row.ranks == 2 and row.longest_ns == 2 * (3 - number) * sum(base.values())
        assert {phase: ns for phase, ns in row.phases_ns.items() if ns} == {
            phase: 1.5 * (3 - number) * ns for phase, ns in base.items()
        }
        assert row.duration_ns == sum(row.phases_ns.values())


def test_nothing_else_of_the_report_knows_them() -> None:
    plain = report_of(layers=2)
    with_them = with_warm_up(warm(0, forward=900, other=1), warm(1, forward=30))
    assert [(row.iteration, row.ranks) for row in with_them.warmup] == [(0, 1), (1, 1)]
    assert replace(with_them, warmup=()) == plain


def test_records_before_a_restart_are_no_iterations() -> None:
    seen = with_warm_up(warm(0, forward=1), warm(1, forward=1), warm(1, restarts=1, forward=30), warm(2, 1, forward=20))
    assert [(row.iteration, row.duration_ns) for row in seen.warmup] == [(1, 30 * MS), (2, 20 * MS)]


def test_forwards_before_training_are_left_out() -> None:
    assert with_warm_up(warm(0, mode=FORWARD, forward=5)).warmup == ()


def test_a_short_script_gets_a_report_of_what_was_seen() -> None:
    report = changed_report(only_warm_up, dp=2, steps=3, noise=0.0)
    assert (report.run.mode, report.run.without_data) == (TRAINING, (0, 1))
    first, whole = render_first_page(report), render(report, TextOptions())
    assert "0 of 2 ranks recorded" in first and "no step was timed; 3 warm-up iterations (0-2) took" in first
    assert "3 iterations seen, 16 needed: add --warmup 1 --timed 1" in first
    last = report.warmup[-1]
    share = round(100 * last.phases_ns["forward"] / last.duration_ns)
    assert any(line.startswith("  forward ") and f" {share}% ###" in line for line in first.splitlines())
    block = whole.partition(" Warm-up iterations ")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[:2] for line in block[-3:]] == [["0", "2"], ["1", "2"], ["2", "2"]]
