"""Long iterations: the ranks that make them long, where, and what stopped them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import pytest
from support.reports import changed_report
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS, WARMUP

from distprof.merge.analyse import analyse
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import Report
from distprof.merge.text.blocks.long_steps import long_steps_block
from distprof.merge.text.blocks.verdict import verdict
from distprof.records import Pauses, Record, Step

WORLD = {"world": tuple(range(8))}


def simulated(ranks: Collection[int], steps: Collection[int], ms: float = 150) -> LoadedRun:
    """Returns a run in which some ranks take longer in the forward of layers.1 in some steps; iterations begin at 5."""
    return SimulatedJob(data_parallel(lambda rank, step: ms * (rank in ranks and step in steps)), 8, WORLD).run()


def with_pauses(run: LoadedRun, ranks: Collection[int], name: str, ms: float) -> LoadedRun:
    """Returns the run with a pause in each step of some ranks."""
    changed = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        own = window.collectives
        assert own is not None
        if data.rank in ranks:
            times = np.array([0], np.int64), np.array([ms * MS], np.int64)
            found = tuple(Pauses(step, "training", (name,), np.array([0]), *times) for step in own.iterations)
            window = replace(window, collectives=replace(own, pauses=found))
        changed.append(replace(data, windows={key: window}))
    return replace(run, ranks=tuple(changed))


def test_ranks_that_make_iterations_long_and_not_those_that_wait_for_them() -> None:
    report = analyse(simulated((3, 5), (2, 6, 7)))
    assert report.summary.iterations is not None
    assert [one.iteration for one in report.long_steps] == list(report.summary.iterations.long) == [7, 11, 12]
    for one in report.long_steps:
        assert (one.ranks, one.subject, one.phase, one.everywhere) == ((3, 5), "layers.1", "forward", False)
        assert one.excess_ns == pytest.approx(150 * MS, rel=0.02)
        assert one.time_ns == pytest.approx(201 * MS, rel=0.03)
    (burst,) = report.verdict.bursts
    assert (burst.iterations, burst.of_steps, burst.ranks) == ((7, 11, 12), 10, (3, 5))
    assert "; in 3 of 10 steps ranks 3, 5 lose 1" in " ".join(verdict(report)), "150 ms in forward of layers.1"


@pytest.mark.parametrize(
    ("name", "hint"), [("garbage collection, generation 2", "gc.freeze()"), ("compilation", "TORCH_LOGS=recompiles")]
)
def test_what_stopped_them_is_named_where_it_took_most_of_it(name: str, hint: str) -> None:
    run = simulated((3, 5), (2, 6, 7))
    (burst,) = analyse(with_pauses(run, (3, 5), name, 120)).verdict.bursts
    assert burst.pause == name
    report = analyse(with_pauses(run, (3, 5), name, 120))
    assert f"in forward of layers.1: {name}" in " ".join(verdict(report))
    assert any(hint in sentence for sentence in report.next_steps)
    for ranks, ms in (((3, 5), 40), ((3,), 120)):
        (burst,) = analyse(with_pauses(run, ranks, name, ms)).verdict.bursts
        assert burst.pause == "", "a small part of it, or only on one of the ranks"


def test_a_pause_that_the_verdict_names_is_no_burst_as_well() -> None:
    report = analyse(simulated((2,), (4,)))
    assert (report.verdict.ranks.cause, report.verdict.ranks.group) == ("pause", (2,))
    assert report.verdict.bursts == ()
    assert [(one.iteration, one.ranks) for one in report.long_steps] == [(9, (2,))]


def test_reasons_are_counted_apart_the_most_frequent_first() -> None:
    program = data_parallel(
        lambda rank, step: 150 * ((rank in (3, 5) and step in (2, 6)) or (rank in (0, 1, 7) and step in (0, 3, 8)))
    )
    found = analyse(SimulatedJob(program, 8, WORLD).run()).verdict.bursts
    assert [(one.iterations, one.ranks) for one in found] == [((5, 8, 13), (0, 1, 7)), ((7, 11), (3, 5))]


def bent(lost: Callable[[int], dict[str, int]], steps: Collection[int] = (2, 5)) -> Report:
    """Returns the report of a job without collectives: in some steps ``lost`` says what a rank loses, by phase."""

    def change(rank: int, record: Record) -> Record:
        if not isinstance(record, Step) or record.iteration - WARMUP - 1 not in steps:
            return record
        more = {phase: ms * MS for phase, ms in lost(rank).items()}
        phases = {phase: time + more.get(phase, 0) for phase, time in record.phases_ns.items()}
        phases |= {phase: time for phase, time in more.items() if phase not in phases}
        return replace(record, phases_ns=phases, duration_ns=record.duration_ns + sum(more.values()))

    return changed_report(change, dp=8, layers=1, steps=8, noise=0.0)


def test_where_waits_are_not_known_the_few_in_another_place_are_the_cause() -> None:
    report = bent(lambda rank: {"other" if rank == 3 else "backward": 200})
    assert [(one.ranks, one.phase) for one in report.long_steps] == [((3,), "other")] * 2


def test_where_that_cannot_be_told_nobody_is_named() -> None:
    report = bent(lambda rank: {"other" if rank % 2 else "data": 200})
    assert [(one.ranks, one.subject, one.pause) for one in report.long_steps] == [((), "", "")] * 2
    assert report.verdict.bursts == ()
    assert [line.split()[3] for line in list(long_steps_block(report))[-2:]] == ["n/a"] * 2


def test_all_ranks_alike() -> None:
    report = bent(lambda rank: {"other": 200})
    (burst,) = report.verdict.bursts
    assert (burst.everywhere, burst.phase, burst.excess_ns) == (True, "other", 200 * MS)
    assert 'in 2 of 8 steps all ranks lose 200 ms in the phase "other"' in " ".join(verdict(report))
    alone = replace(report, ranks=report.ranks[:1])
    assert 'in 2 of 8 steps the script loses 200 ms in the phase "other"' in " ".join(verdict(alone))
    lines = list(long_steps_block(report))
    assert [line.split()[0] for line in lines[-2:]] == ["8", "11"] and " all " in lines[-1]
    assert any("checkpoint" in sentence for sentence in report.next_steps)


def test_one_process_has_long_iterations_as_well() -> None:
    def change(rank: int, record: Record) -> Record:
        if not isinstance(record, Step) or record.iteration != WARMUP + 3:
            return record
        phases = {**record.phases_ns, "data": record.phases_ns["data"] + 300 * MS}
        return replace(record, phases_ns=phases, duration_ns=record.duration_ns + 300 * MS)

    report = changed_report(change, dp=1, layers=1, steps=6, noise=0.0)
    assert [(one.iteration, one.ranks, one.phase) for one in report.long_steps] == [(WARMUP + 3, (0,), "data")]
    assert list(long_steps_block(changed_report(dp=1, layers=1, noise=0.0))) == []
