"""Hosts and groups of an axis are named as wholes where nearly all of their ranks are slow alike, and not by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.reports import changed_report, report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.merge.arrays import FloatArray
from distprof.merge.job.rank_groups import HOST, RankGroup
from distprof.merge.report import NOT_ENOUGH, SLOW, SLOW_HOST, THROUGHOUT, RankVerdict
from distprof.merge.skew.excess import CohortExcess, cohort_excess
from distprof.merge.skew.slow_groups import groups_standing_out
from distprof.merge.skew.step_times import Place, StepTimes
from distprof.records import Record, Step

ITERATION = 100.0 * MS


def groups_of(size: int, world: int, kind: str = HOST) -> list[RankGroup]:
    return [
        RankGroup(kind, f"node{first // size}", tuple(range(first, first + size))) for first in range(0, world, size)
    ]


def excess_of(ms: FloatArray, ranks: Sequence[int] = ()) -> CohortExcess:
    """``ms``: (places, ranks, steps)."""
    places = tuple(Place(f"layers.{number}", "forward") for number in range(len(ms)))
    return cohort_excess(StepTimes(tuple(ranks or range(ms.shape[1])), np.arange(ms.shape[2]), places, ms * MS))


def noisy(seed: int, ranks: int, size: int, steps: int = 10) -> FloatArray:
    """Returns times about 10 ms: hosts, and their ranks, differ a little for ever, and more from step to step; a tenth
    of the times has a pause, and a twentieth of a host's steps one that all its ranks share.
    """
    random = np.random.default_rng(seed)
    hosts = np.repeat(random.normal(0, 0.3, (ranks // size, 1)), size, axis=0)
    shared = np.repeat((random.random((ranks // size, steps)) < 0.05) * random.exponential(10, steps), size, axis=0)
    own = 10 + hosts + random.normal(0, 0.3, (ranks, 1)) + random.normal(0, 1.0, (ranks, steps))
    return own + shared + (random.random((ranks, steps)) < 0.1) * random.exponential(10, (ranks, steps))


@pytest.mark.parametrize(("ranks", "size"), [(8, 2), (8, 4), (32, 8), (64, 2)])
def test_healthy_runs_name_no_group(ranks: int, size: int) -> None:
    groups, false = groups_of(size, ranks), 0
    for seed in range(100):
        times = np.stack([noisy(1000 * seed + place, ranks, size) for place in range(12)])
        false += any(True for _ in groups_standing_out(groups, [excess_of(times)], ITERATION))
    assert false <= 1, "1 % of the runs"


@pytest.mark.parametrize(("ranks", "size"), [(8, 2), (16, 8), (32, 8)])
def test_a_slow_host_is_found_in_nearly_every_noisy_run_and_no_other(ranks: int, size: int) -> None:
    groups, right, wrong = groups_of(size, ranks), 0, 0
    for seed in range(100):
        times = noisy(seed, ranks, size)[None]
        times[:, size : 2 * size] += 14
        found = [one.group.name for one in groups_standing_out(groups, [excess_of(times)], ITERATION)]
        right += found == ["node1"]
        wrong += bool(set(found) - {"node1"})
    assert (right >= 90, wrong) == (True, 0)


@pytest.mark.parametrize(("slow", "named"), [([8, 9, 10, 11], True), ([8, 9, 10], False), ([9], False)])
def test_nearly_all_members_are_slow_alike(slow: list[int], named: bool) -> None:
    times = np.full((1, 16, 10), 10.0)
    times[:, slow] += 30
    found = list(groups_standing_out(groups_of(4, 16), [excess_of(times)], ITERATION))
    assert [one.group.name for one in found] == ["node2"] * named
    large = np.full((1, 32, 10), 10.0)
    large[:, 8:15] += 30
    (seven,) = groups_standing_out(groups_of(8, 32), [excess_of(large)], ITERATION)
    assert (len(seven.members), seven.compared, seven.evidence.cohort) == (7, 8, 4)


def test_of_two_groups_only_hosts_are_compared() -> None:
    times = np.full((1, 8, 10), 10.0)
    times[:, 4:] += 30
    assert len(list(groups_standing_out(groups_of(4, 8), [excess_of(times)], ITERATION))) == 1
    assert list(groups_standing_out(groups_of(4, 8, "tp"), [excess_of(times)], ITERATION)) == []


def test_members_of_several_cohorts_are_compared_each_with_its_own() -> None:
    """Ranks 0, 2, ... are of one stage and take 10 ms, the others take 50 ms; all ranks of node1 take 30 ms more."""
    groups = groups_of(4, 16)
    first, second = np.full((1, 8, 10), 10.0), np.full((1, 8, 10), 50.0)
    cohorts = [excess_of(first, range(0, 16, 2)), excess_of(second, range(1, 16, 2))]
    assert list(groups_standing_out(groups, cohorts, ITERATION)) == []
    first[:, 2:4] += 30
    cohorts = [excess_of(first, range(0, 16, 2)), excess_of(second, range(1, 16, 2))]
    assert list(groups_standing_out(groups, cohorts, ITERATION)) == [], "half of the host's ranks"
    second[:, 2:4] += 30
    cohorts = [excess_of(first, range(0, 16, 2)), excess_of(second, range(1, 16, 2))]
    (found,) = groups_standing_out(groups, cohorts, ITERATION)
    assert (found.group.name, sorted(one.rank for one in found.members)) == ("node1", [4, 5, 6, 7])


def test_of_a_group_of_two_more_is_asked() -> None:
    """Their median is a mean: by chance it is further off than that of three."""
    for size, added, slow_steps, named in ((2, 8, 10, 0), (2, 12, 10, 1), (2, 12, 8, 0), (4, 8, 10, 1), (4, 12, 8, 1)):
        times = np.full((1, 16, 10), 10.0)
        times[:, 4 : 4 + size, :slow_steps] += added
        found = list(groups_standing_out(groups_of(size, 16), [excess_of(times)], ITERATION))
        assert len(found) == named, (size, added, slow_steps)


def test_no_group_is_named_where_most_ranks_would_be() -> None:
    """Of two hosts of two ranks the second is slow, and so is rank 1 of the first: nothing tells what is normal."""
    program = data_parallel(lambda rank, step: 30 * (rank >= 2) + 80 * (rank == 1))
    job = SimulatedJob(program, 4, {"world": (0, 1, 2, 3)}, hosts=lambda rank: f"node{rank // 2}")
    assert analyse(job.run()).verdict.ranks.groups == ()


WORLD = {"world": tuple(range(8))}


def simulated(slow: Sequence[int], size: int, **changes: object) -> RankVerdict:
    """Returns the verdict of 8 ranks in groups of ``size``, with own times; some take 30 ms more."""
    program = data_parallel(lambda rank, step: 30.0 * (rank in slow))
    job = SimulatedJob(program, 8, WORLD, hosts=lambda rank: f"node{rank // size}")
    return analyse(replace(job, **changes).run()).verdict.ranks  # type: ignore[arg-type]


def test_a_host_is_named_with_its_figures() -> None:
    found = simulated([4, 5], 2)
    (one,) = found.groups
    assert (found.finding, sorted(rank.rank for rank in found.named)) == (SLOW, [4, 5])
    assert (one.kind, one.name, one.ranks, one.slow, one.groups) == (HOST, "node2", (4, 5), (4, 5), 4)
    assert (one.subject, one.phase, one.steps, one.of_steps) == ("layers.1", "forward", 10, 10)
    assert one.excess_ns == pytest.approx(30 * MS, rel=0.05)
    assert found.iteration_ns is not None and one.share == pytest.approx(one.excess_ns / found.iteration_ns)
    assert (found.cause, found.group) == (SLOW_HOST, (4, 5))
    assert found.cost_ns == pytest.approx(30 * MS, rel=0.1), "of both ranks together"


def test_the_slower_of_two_hosts_is_named_and_half_of_one_host_is_not() -> None:
    found = simulated([4, 5, 6, 7], 4)
    assert (found.finding, [one.name for one in found.groups], len(found.named)) == (SLOW, ["node1"], 4)
    half = simulated([4, 5, 6, 7], 8)
    assert (half.finding, half.groups, half.named) == (NOT_ENOUGH, (), ())


def test_one_rank_is_no_host() -> None:
    found = simulated([5], 2)
    assert (found.groups, [one.rank for one in found.named]) == ((), [5])


def test_where_a_rank_loses_much_more_than_its_host_the_ranks_are_named() -> None:
    program = data_parallel(lambda rank, step: 30 * (rank in (4, 5, 6, 7)) + 100 * (rank == 5))
    job = SimulatedJob(program, 16, {"world": tuple(range(16))}, hosts=lambda rank: f"node{rank // 4}")
    found = analyse(job.run()).verdict.ranks
    assert ([one.rank for one in found.named], found.groups) == ([5, 4, 6, 7], ())


@pytest.mark.parametrize(("axis", "slow"), [("tp", [2, 3]), ("dp", [1, 5])])
def test_a_group_of_an_axis_is_named_where_it_is_no_host(axis: str, slow: list[int]) -> None:
    """Of ``tp`` groups of neighbours, or ``dp`` groups of every fourth rank of four tp ranks."""
    sizes, width = ({"tp": 2, "dp": 4}, 2) if axis == "tp" else ({"tp": 4, "dp": 2}, 4)
    found = simulated(slow, 8, sizes=sizes, coordinates=lambda rank: {"tp": rank % width, "dp": rank // width})
    (one,) = found.groups
    assert (one.kind, one.name, one.slow) == (axis, "dp 1" if axis == "tp" else "tp 1", tuple(slow))
    assert found.cause == ""


def throughout(rank: int, record: Record) -> Record:
    """Makes all ranks of node2 slower by a quarter of each time."""
    if not isinstance(record, Step) or rank // 8 != 2:
        return record
    phases = {name: int(1.25 * time) for name, time in record.phases_ns.items()}
    forward, backward = ((1.25 * times).astype(np.int64) for times in (record.forward_ns, record.backward_ns))
    return replace(record, phases_ns=phases, duration_ns=sum(phases.values()), forward_ns=forward, backward_ns=backward)


def test_a_machine_that_is_slow_everywhere_is_named_by_self_times_as_well() -> None:
    found = changed_report(throughout, dp=32, layers=2, steps=6, noise=0.02).verdict.ranks
    (one,) = found.groups
    assert (one.name, one.subject, one.ranks) == ("node2", THROUGHOUT, tuple(range(16, 24)))
    assert one.share == pytest.approx(0.25, rel=0.1) and found.why_self_times


def test_by_self_times_no_group_is_named_whose_members_may_wait_for_each_other() -> None:
    """Each host is one tp group: one of its ranks may be slow, and the others wait in the same place."""
    found = changed_report(throughout, dp=4, tp=8, layers=2, steps=6, noise=0.02).verdict.ranks
    assert found.groups == ()


def test_rows_of_hosts() -> None:
    job = SimulatedJob(data_parallel(lambda rank, step: 30 * (rank in (4, 5)), noise=0), 8, WORLD)
    rows = analyse(replace(job, hosts=lambda rank: f"node{rank // 2}").run()).hosts
    assert [(row.host, row.ranks, row.slow) for row in rows][2:] == [("node2", (4, 5), (4, 5)), ("node3", (6, 7), ())]
    times = [(row.iteration_ns, row.own_ns, row.wait_ns, row.data_ns) for row in rows]
    # 2 ms of data, 15 of forward, 31 of backward, 3 of optimizer; 30 more, for which the other hosts wait
    assert times == [(81 * MS, (81 if host == 2 else 51) * MS, (30 * MS) * (host != 2), 2 * MS) for host in range(4)]
    unknown = report_of(dp=16, layers=1).hosts
    assert [(row.host, row.own_ns, row.wait_ns) for row in unknown] == [("node0", None, None), ("node1", None, None)]
    assert all(row.peak_memory_bytes for row in unknown)
