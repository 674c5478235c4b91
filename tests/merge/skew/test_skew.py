"""Who is slow, in what: found where it was planted, and nobody named where nobody can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS, Job, in_memory, write_run

from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run, run_of_shards
from distprof.merge.report import Report
from distprof.merge.skew.skew import MAP_COLUMNS, excess_over_cohort
from distprof.merge.text.blocks.skew import skew_block
from distprof.records import FORWARD


def report(**job: Any) -> Report:
    return analyse(run_of_shards(in_memory(Job(**job))))


def peak(found: Report) -> tuple[int, str, str]:
    """(rank, module, phase) of the largest excess in the map."""
    skew_map = found.skew.map
    excess = np.array(skew_map.excess_ns, np.float64)
    row, column = np.unravel_index(np.nanargmax(excess), excess.shape)
    return skew_map.ranks[row], skew_map.subjects[column], skew_map.phases[column]


@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("layout", [{"dp": 8}, {"dp": 4, "tp": 2, "ep": 2}, {"dp": 3, "pp": 2}])
def test_the_slow_module_of_the_slow_rank_comes_first(layout: dict[str, int], phase: str) -> None:
    found = report(**layout, layers=4, slow_rank=4, slow_module="blocks.2.attn", slow_phase=phase)
    worst = found.skew.modules[0]
    assert (worst.subject, worst.phase, worst.slowest_rank) == ("blocks.2.attn", phase, 4)
    assert worst.excess_ns == pytest.approx(40 * MS, rel=0.01)
    assert peak(found) == (4, "blocks.2.attn", phase)
    assert found.skew.too_few == ""


def test_a_slow_data_loader_is_a_phase() -> None:
    found = report(dp=4, slow_rank=2, slow_phase="data")
    rows = {row.subject: row for row in found.skew.phases}
    assert rows["data"].slowest_rank == 2
    assert rows["data"].excess_ns == pytest.approx(40 * MS, rel=0.01)


def test_rows_stand_in_the_order_of_their_excess_and_the_map_has_the_first() -> None:
    skew = report(dp=4, layers=4).skew
    excesses = [row.excess_ns for row in skew.modules]
    assert excesses == sorted(excesses, reverse=True)
    columns = list(zip(skew.map.subjects, skew.map.phases, strict=True))
    assert columns == [(row.subject, row.phase) for row in skew.modules[:MAP_COLUMNS]]


def test_the_map_and_the_rows_show_the_same_numbers() -> None:
    skew = report(dp=4, tp=2, slow_rank=3).skew
    times, excess = np.array(skew.map.self_ns), np.array(skew.map.excess_ns)
    for column, row in enumerate(skew.modules[:MAP_COLUMNS]):
        assert (row.min_ns, row.max_ns) == (times[:, column].min(), times[:, column].max())
        assert row.median_ns == np.median(times[:, column])
        assert row.excess_ns == excess[skew.map.ranks.index(row.slowest_rank), column] == excess[:, column].max()


def test_the_verdicts_figure_is_that_of_the_map() -> None:
    found = report(dp=4, steps=6, noise=0.3, slow_rank=2)
    (one,) = found.verdict.ranks.named
    skew_map = found.skew.map
    column = list(zip(skew_map.subjects, skew_map.phases, strict=True)).index((one.subject, one.phase))
    in_map, in_table = skew_map.excess_ns[skew_map.ranks.index(2)][column], found.skew.modules[0].excess_ns
    assert in_map == in_table == pytest.approx(one.excess_ns, rel=1e-6), "medians over steps have 4 bytes"


def test_ranks_of_different_roles_are_not_compared() -> None:
    # Stage 0 and stage 1 do different work in modules of different names, and in phases of the same name.
    found = report(dp=3, pp=2, layers=3, noise=0)
    assert {row.excess_ns for row in (*found.skew.phases, *found.skew.modules)} == {0.0}


def test_a_rank_without_the_module_has_no_time_in_the_map() -> None:
    found = report(dp=3, pp=2, layers=2, slow_rank=4, slow_module="blocks.1.ln1")
    column = found.skew.map.subjects.index("blocks.1.ln1")
    assert [row[column] is None for row in found.skew.map.self_ns] == [True, True, True, False, False, False]
    assert [row[column] is None for row in found.skew.map.excess_ns] == [True, True, True, False, False, False]


def test_modules_that_nobody_called_have_no_row() -> None:
    subjects = {row.subject for row in report(dp=3).skew.modules}
    assert "blocks" not in subjects
    assert "blocks.0" in subjects


def test_where_nothing_trains_there_is_no_backward() -> None:
    found = report(dp=3, mode=FORWARD)
    assert {row.phase for row in found.skew.modules} == {"forward"}
    assert "backward" not in {row.subject for row in found.skew.phases}


@pytest.mark.parametrize("layout", [{"dp": 1}, {"dp": 1, "pp": 4}])
def test_nobody_is_named_where_no_two_ranks_do_the_same_work(layout: dict[str, int]) -> None:
    found = report(**layout)
    assert found.skew.too_few.startswith("no two ranks do the same work")
    assert found.verdict.ranks.reason == found.skew.too_few
    assert found.skew.modules  # the numbers are there


def test_nobody_is_named_when_too_many_ranks_are_missing(tmp_path: Path) -> None:
    most = analyse(load_run(write_run(tmp_path / "most", dp=10, missing=(1, 2))))
    fewer = analyse(load_run(write_run(tmp_path / "fewer", dp=10, missing=(1, 2, 3))))
    began = analyse(load_run(write_run(tmp_path / "began", dp=10, bend=lambda rank, r: r[:5] if rank < 3 else r)))
    assert most.skew.too_few == ""
    assert fewer.skew.too_few.startswith("only 7 of 10 ranks recorded timed steps (less than 80%)")
    assert began.skew.too_few == fewer.skew.too_few


def test_the_remains_of_a_cohort_are_not_compared_while_others_are_whole() -> None:
    table = np.array([[1.0, 2.0, 6.0, 10.0, 50.0]])
    cohorts = np.array([0, 0, 0, 1, 1])
    assert str(excess_over_cohort(table, cohorts).tolist()) == "[[-3.0, -1.5, 4.5, nan, nan]]"
    assert excess_over_cohort(table[:, 3:], cohorts[3:]).tolist() == [[-40.0, 40.0]]


times = st.lists(st.one_of(st.just(np.nan), st.integers(0, 1000).map(float)), min_size=3, max_size=12)


@given(times, st.data())
def test_excess_is_measured_from_the_median_of_the_known_times_of_the_others_of_a_cohort(
    row: list[float], data: st.DataObject
) -> None:
    cohorts = data.draw(st.lists(st.integers(0, 2), min_size=len(row), max_size=len(row)))
    largest = max(cohorts.count(cohort) for cohort in cohorts)
    excess = excess_over_cohort(np.array([row]), np.array(cohorts))[0]
    for place, (time, cohort) in enumerate(zip(row, cohorts, strict=True)):
        others = [row[other] for other, c in enumerate(cohorts) if c == cohort and other != place]
        others = [other for other in others if not np.isnan(other)]
        if np.isnan(time) or cohorts.count(cohort) < min(3, largest) or (largest > 1 and not others):
            assert np.isnan(excess[place])
        elif largest == 1:
            assert excess[place] == 0
        else:
            assert excess[place] == time - np.median(others)


def test_own_times_and_waits_where_collectives_are_known() -> None:
    """Three ranks wait 30 ms in backward for rank 2, which is slow in forward."""
    job = SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 2), noise=0), 4, {"world": (0, 1, 2, 3)})
    skew = analyse(job.run()).skew
    phases = {row.subject: row for row in skew.phases}
    assert skew.has_own_times
    assert (phases["forward"].wait_ns, phases["forward"].min_ns, phases["forward"].max_ns) == (0, 15 * MS, 45 * MS)
    assert (phases["backward"].wait_ns, phases["backward"].min_ns, phases["backward"].max_ns) == (
        30 * MS,
        31 * MS,
        31 * MS,
    )
    whole = phases["iteration"]
    assert (whole.wait_ns, whole.min_ns, whole.max_ns) == (30 * MS, 51 * MS, 81 * MS)
    assert (whole.slowest_rank, whole.excess_ns) == (2, 30 * MS)
    assert next(row.wait_ns for row in skew.modules if (row.subject, row.phase) == ("Net", "backward")) == 30 * MS
    titles = [line.split()[:3] for line in skew_block(analyse(job.run())) if line.startswith(("phase", "module"))]
    assert titles == [["phase", "wait", "min"], ["module", "phase", "wait"]]


def test_self_times_where_waits_are_not_known() -> None:
    skew = report(dp=4, slow_rank=1).skew
    assert not skew.has_own_times and {row.wait_ns for row in (*skew.phases, *skew.modules)} == {None}
