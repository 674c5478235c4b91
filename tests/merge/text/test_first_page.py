"""The first page: the answer first, on one screen, in the situations that people meet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.reports import changed_report, report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS, WARMUP

from distprof.merge.analyse import analyse
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render, render_first_page
from distprof.records import Counts, End, ExpertLoad, Memory, Plan, Record, Step, Tree, WarmupStep

GOLDEN = Path(__file__).parent / "golden" / "first_page"


def timed(change: Callable[[int, int, Step], Step], **job: Any) -> Report:
    """Returns the report of a job in which ``change`` got (rank, place of the step, step)."""
    first: dict[int, int] = {}

    def changed(rank: int, record: Record) -> Record:
        if not isinstance(record, Step):
            return record
        return change(rank, record.iteration - first.setdefault(rank, record.iteration), record)

    return changed_report(changed, **job)


def longer(step: Step, phase: str, ms: float) -> Step:
    """Returns ``step`` with ``ms`` more in one phase."""
    more = round(ms * MS)
    phases = {**step.phases_ns, phase: step.phases_ns.get(phase, 0) + more}
    return replace(step, phases_ns=phases, duration_ns=step.duration_ns + more)


def slow_host(rank: int, place: int, step: Step) -> Step:
    """All times of the ranks of node2 are longer by a quarter."""
    if rank // 8 != 2:
        return step
    phases = {phase: round(1.25 * time) for phase, time in step.phases_ns.items()}
    forward, backward = ((1.25 * times).astype(np.int64) for times in (step.forward_ns, step.backward_ns))
    return replace(step, phases_ns=phases, duration_ns=sum(phases.values()), forward_ns=forward, backward_ns=backward)


def short(rank: int, record: Record) -> Record | None:
    """A script that ends after three iterations: they are warm-up ones, the first of them long."""
    if isinstance(record, Step):
        number = record.iteration - WARMUP - 1
        phases = {phase: time * (5 if number == 0 else 1) for phase, time in record.phases_ns.items()}
        return WarmupStep(number, record.mode, record.start_wall_ns, sum(phases.values()), phases)
    if isinstance(record, Plan):
        return replace(record, timed=10)
    if isinstance(record, End):
        return End("exit", 3)
    return None if isinstance(record, Counts | ExpertLoad | Memory) else record


QUIET: dict[str, Any] = {"dp": 4, "tp": 2, "layers": 4, "steps": 10, "noise": 0.0}
SITUATIONS: dict[str, Callable[[], Report]] = {
    "slow_rank": lambda: report_of(**QUIET, slow_rank=5),
    "slow_host": lambda: timed(slow_host, **{**QUIET, "dp": 32, "tp": 1, "layers": 2}),
    "pauses": lambda: timed(lambda rank, place, step: longer(step, "other", 400 * (place in (2, 5, 6))), **QUIET),
    "data_wait": lambda: timed(lambda rank, place, step: longer(step, "data", 30), **QUIET),
    "hot_expert": lambda: report_of(**QUIET, ep=4, experts=8, hot=5.0),
    "pipeline": lambda: report_of(**{**QUIET, "tp": 1, "pp": 4, "micro_batches": 4}),
    "nothing_wrong": lambda: report_of(**QUIET),
    "too_few_ranks": lambda: report_of(layers=4, steps=10, noise=0.0, dp=1, tp=2),
    "short_script": lambda: changed_report(short, **{**QUIET, "dp": 1, "tp": 1, "steps": 3}),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_golden(situation: str) -> None:
    """After a change that is meant: UPDATE_GOLDEN=1 pytest tests/merge/text, and read the difference."""
    page, file = render_first_page(SITUATIONS[situation]()), GOLDEN / f"{situation}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(page, encoding="utf-8")
    assert page == file.read_text(encoding="utf-8")


def renamed(rank: int, record: Record) -> Record:
    if not isinstance(record, Tree):
        return record
    rows = [
        replace(row, name=f"{row.name}\x1b[31m{'very_long_' * 12}\n{number}") for number, row in enumerate(record.rows)
    ]
    return replace(record, rows=tuple(rows))


@pytest.mark.parametrize(
    "report",
    [
        *SITUATIONS.values(),
        lambda: report_of(dp=64, tp=2, pp=2, layers=4, steps=3, slow_rank=77),
        lambda: changed_report(renamed, dp=4, slow_rank=1),
        lambda: changed_report(without=(0, 2, 5), dp=8),
        lambda: changed_report(lambda rank, record: None if isinstance(record, Step) else record, dp=2),
    ],
)
def test_the_page_fits_on_one_screen(report: Callable[[], Report]) -> None:
    lines = render_first_page(report()).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_the_verdict_comes_before_all_figures() -> None:
    text = render(report_of(**QUIET, slow_rank=5), TextOptions())
    places = [
        text.index(word) for word in ("slowest: rank 5", "iteration ", "throughput", "most self time", "Profile Sum")
    ]
    assert places == sorted(places)
    assert text.startswith(render_first_page(report_of(**QUIET, slow_rank=5)))


def test_shares_of_the_phases_add_up() -> None:
    page = render_first_page(SITUATIONS["data_wait"]())
    shares = [int(share) for share in re.findall(r"^  .* (\d+)% #*$", page, re.MULTILINE)]
    assert len(shares) >= 3 and sum(shares) == pytest.approx(100, abs=len(shares))


def test_the_busiest_modules_are_those_of_largest_self_time() -> None:
    report = report_of(**QUIET)
    own = {m.label: (m.forward_self_ns or 0) + (m.backward_self_ns or 0) for m in report.modules}
    page = render_first_page(report)
    shown = page.partition("most self time")[2].splitlines()[1:6]
    assert [line.split()[0] for line in shown] == sorted(own, key=lambda label: -own[label])[:5]


def test_notes_are_shortened_and_counted() -> None:
    report = report_of(**QUIET)
    noted = replace(report, run=replace(report.run, notes=("word " * 100, "b", "c", "d", "e")))
    page = render_first_page(noted)
    assert page.count("note: ") == 3 and "word ..." in page and "2 more notes in summary.txt" in page


def test_a_long_answer_leaves_less_room_for_notes() -> None:
    report = report_of(**QUIET, slow_rank=5)
    (slow,) = report.verdict.ranks.named
    many = tuple(replace(slow, rank=rank, subject=f"a.module.of.its.own.{rank}") for rank in range(9))
    verdict = replace(report.verdict, ranks=replace(report.verdict.ranks, named=many))
    noted = replace(report, verdict=verdict, run=replace(report.run, notes=("word " * 100,) * 5))
    lines = render_first_page(noted).splitlines()
    assert len(lines) <= 40 and lines[-1].startswith("All of the report")
    assert "more notes in summary.txt" in lines[-2]


def test_phases_include_waits_where_collectives_are_known() -> None:
    """Ranks spend 15 and 61 ms in forward and backward, 30 ms of the latter in waits for rank 2."""
    job = SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 2), noise=0), 4, {"world": (0, 1, 2, 3)})
    report = analyse(job.run())
    medians = {one.phase: one.median_ns for one in report.time.phases}
    assert medians == {"data": 2 * MS, "forward": 15 * MS, "backward": 61 * MS, "optimizer": 3 * MS}
    page = render_first_page(report)
    (backward,) = re.findall(r"^  backward .*%  ?(.*)$", page, re.MULTILINE)
    assert (backward.count("#"), backward.count(".")) == (15, 15)
    assert "dots are waits" in page and "dots are waits" not in render_first_page(report_of(dp=4))
