"""The grid of gains: each place's ranks replayed at the median of their cohort."""

from __future__ import annotations

from typing import Any

import pytest
from support.reports import report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS

from distprof.merge import gain_grid
from distprof.merge.analyse import analyse
from distprof.merge.report import GainGrid


def grid(slow: int, **job: Any) -> GainGrid:
    program = data_parallel(lambda rank, step: 30 * (rank == slow), noise=0)
    return analyse(SimulatedJob(program, 8, {"world": tuple(range(8))}, **job).run()).gains


def on(axis: str) -> dict[str, Any]:
    """Returns a job of 4 replicas x 2 ranks of an axis, which runs fastest."""
    sizes = {"dp": 4, axis: 2, "mp": 2}
    return {"sizes": sizes, "coordinates": lambda rank: {"dp": rank // 2, axis: rank % 2, "mp": rank % 2}}


def test_tensor_parallel_ranks_by_replicas() -> None:
    found = grid(5, **on("tp"))
    assert (found.row_axis, found.column_axis, found.rows, found.columns) == (
        "tp",
        "dp",
        ("0", "1"),
        ("0", "1", "2", "3"),
    )
    assert found.ranks == (((0,), (2,), (4,), (6,)), ((1,), (3,), (5,), (7,)))
    assert found.by_replay and found.gain_ns[1][2] == pytest.approx(30 * MS)
    others = [gain for row in found.gain_ns for gain in row if gain is not None and gain != found.gain_ns[1][2]]
    assert others == pytest.approx([0.0] * 7)


def test_hosts_by_local_ranks_and_nothing_for_one_host() -> None:
    found = grid(5, hosts=lambda rank: f"node{rank // 4}")
    assert (found.row_axis, found.rows) == ("host", ("node0", "node1"))
    assert found.gain_ns[1][1] == pytest.approx(30 * MS)
    assert grid(5) == GainGrid()


def test_places_without_others_of_their_cohort_have_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one replica of two stages, each rank is alone in its cohort."""
    found = grid(
        5, hosts=lambda rank: f"node{rank // 4}", sizes={"pp": 8, "mp": 8}, coordinates=lambda rank: {"pp": rank}
    )
    assert {gain for row in found.gain_ns for gain in row} == {None}


def test_where_replays_would_take_long_own_times_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain_grid, "MOST_REPLAYED", 0)
    found = grid(5, **on("tp"))
    assert not found.by_replay and found.gain_ns[1][2] == pytest.approx(30 * MS)


def test_without_own_times_there_is_no_grid() -> None:
    assert report_of(dp=4, tp=2).gains == GainGrid()
