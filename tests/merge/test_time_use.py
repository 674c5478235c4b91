"""Where the time goes: phases with what to look at, and self times of modules and classes."""

from __future__ import annotations

from typing import Any

import pytest
from support.reports import changed_report, report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.merge.report import Report, SelfTime
from distprof.merge.text import TextOptions, render
from distprof.records import PHASES, Record, Step

QUIET: dict[str, Any] = {"dp": 4, "layers": 4, "steps": 5, "noise": 0.0}


def simulated(slow_ms: float) -> Report:
    """Returns the report of four ranks of which rank 2 takes longer in the forward of layers.1."""
    program = data_parallel(lambda rank, step: slow_ms * (rank == 2), noise=0)
    return analyse(SimulatedJob(program, 4, {"world": (0, 1, 2, 3)}).run())


def by_subject(rows: tuple[SelfTime, ...]) -> dict[str, SelfTime]:
    return {row.subject: row for row in rows}


@pytest.mark.parametrize("job", [QUIET, {**QUIET, "tp": 2}, {"layers": 3, "steps": 2, "noise": 0.0, "dp": 1}])
def test_classes_add_up_to_the_time_in_modules(job: dict[str, int]) -> None:
    report = report_of(**job)
    for phase, field in (("forward", "forward_ns"), ("backward", "backward_ns")):
        in_modules = sum(row.phases_ns[phase] or 0 for row in report.ranks) / len(report.ranks)
        assert sum(getattr(row, field) or 0 for row in report.time.classes) == pytest.approx(in_modules)


def test_a_class_on_one_pipeline_stage_counts_as_its_mean_over_all_ranks() -> None:
    report = report_of(**{**QUIET, "dp": 2, "pp": 2})
    head = by_subject(report.time.modules)["embed"]
    (embedding,) = [row for row in report.time.classes if row.subject == "Embedding"]
    assert head.forward_ns and embedding.forward_ns == pytest.approx(head.forward_ns / 2), "on half of the ranks"


def test_a_container_has_its_own_time_in_a_row() -> None:
    report = report_of(**QUIET)
    rows, modules = by_subject(report.time.modules), {module.label: module for module in report.modules}
    moe = rows["blocks.1.moe"]
    assert moe.contains and (moe.forward_ns, moe.backward_ns) == (1 * MS, 2 * MS)
    assert (modules["blocks.1.moe"].forward_ns or 0) > 3 * MS, "with the experts inside"
    assert "\nblocks.1.moe (itself) " in render(report, TextOptions())
    assert not rows["head"].contains


def test_waits_are_left_out_and_said_for_whom() -> None:
    """The backward of the outermost module is 31 ms, of which 30 are waits for rank 2 on three of the four ranks."""
    report = simulated(30)
    root = next(row for row in report.time.modules if row.contains)
    assert report.time.has_own_times
    assert root.wait_ns == pytest.approx(30 * MS) and root.backward_ns == pytest.approx(1 * MS)
    backward = next(one for one in report.time.phases if one.phase == "backward")
    assert backward.median_ns == pytest.approx(61 * MS) and backward.wait_ns == pytest.approx(30 * MS)
    assert backward.look_at.startswith("waits for rank 2, the last in ")
    assert report.time.modules[0].subject != root.subject, "the longest own time is that of a layer"


def test_ranks_that_wait_for_each_other_in_turn_are_not_blamed_on_one() -> None:
    turns = data_parallel(lambda rank, step: 30 * (rank == step % 4), noise=0)
    report = analyse(SimulatedJob(turns, 4, {"world": (0, 1, 2, 3)}).run())
    backward = next(one for one in report.time.phases if one.phase == "backward")
    assert backward.wait_ns and backward.look_at.startswith("waits for several ranks")


def test_every_phase_has_a_meaning_and_something_to_look_at() -> None:
    def with_evaluation(rank: int, record: Record) -> Record:
        if isinstance(record, Step):
            record.phases_ns["evaluation"] = 2 * MS
        return record

    report = changed_report(with_evaluation, **QUIET)
    assert [one.phase for one in report.time.phases] == list(PHASES)
    assert all(one.meaning and one.look_at for one in report.time.phases)
    assert sum(one.share for one in report.time.phases) == pytest.approx(1)
    text = " ".join(render(report, TextOptions()).split())
    for one in report.time.phases:
        assert one.meaning in text and f"-> {one.look_at}" in text


def test_sums_that_differ_from_the_median_iteration_are_explained() -> None:
    """Each rank has a pause in another phase every second step, so that medians of phases add up to less."""

    def paused(rank: int, record: Record) -> Record:
        if isinstance(record, Step) and record.iteration % 5:
            phase = ("data", "other", "optimizer", "outside")[record.iteration % 4]
            record.phases_ns[phase] += 40 * MS
            object.__setattr__(record, "duration_ns", record.duration_ns + 40 * MS)
        return record

    told = "each is a median of its own"
    text = render(changed_report(paused, **{**QUIET, "steps": 10}), TextOptions()).replace("\n", " ")
    assert text.count(told) == 2, "on the first page, and in the block of the phases"
    assert told not in render(report_of(**QUIET), TextOptions()).replace("\n", " ")


def test_latencies_that_do_not_add_up_to_the_iteration_are_added_up() -> None:
    """Forward, backward and optimizer each are long in another third of the steps."""
    longer = ("forward", "backward", "optimizer")

    def turns(rank: int, record: Record) -> Record:
        if isinstance(record, Step):
            record.phases_ns[longer[record.iteration % 3]] += 40 * MS
        return record

    report = changed_report(turns, **{**QUIET, "steps": 9})
    summary = report.summary
    parts = [summary.fwd_latency_ns, summary.bwd_latency_ns, summary.step_latency_ns]
    total = sum(part.median for part in parts if part) / MS
    assert summary.iter_latency_ns and summary.iter_latency_ns.median / MS == pytest.approx(total + 40)
    assert "fwd, bwd and step latency above, added up:" in render(report, TextOptions())
    (line,) = [line for line in render(report, TextOptions()).splitlines() if "added up:" in line]
    assert float(line.split(":")[1].split()[0]) == pytest.approx(total, abs=0.01)
    assert "added up" not in render(report_of(**QUIET), TextOptions())


def test_one_process_has_the_tables() -> None:
    text = render(report_of(dp=1, layers=2, steps=3), TextOptions())
    block = text.partition("Where the time goes")[2].partition("-----\n\n")[0]
    assert "class " in block and "module " in block and "Linear" in block
    assert "over the ranks" not in block


def test_without_a_timed_step_there_is_nothing() -> None:
    report = changed_report(lambda rank, record: None if isinstance(record, Step) else record, dp=2)
    assert not report.time.phases and not report.time.modules
    assert "Where the time goes" not in render(report, TextOptions())
