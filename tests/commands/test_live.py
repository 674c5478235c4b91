"""Tests of the commands for a running job: what they say of folders that are no run, and the table on a terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from distprof.commands.live.rows import COLUMNS
from distprof.commands.live.table import drawn
from distprof.launcher.daemon.job_view import JobView, RankView
from distprof.launcher.daemon.status import RankStatus


@pytest.mark.parametrize("command", ["top", "status", "trigger"])
def test_a_folder_that_is_not_there_or_has_no_daemon(command: str, here: Any, tmp_path: Path) -> None:
    asked = here(command, tmp_path / "runs" / "x")
    assert asked.returncode != 0
    assert (
        asked.stderr == f"distprof: {tmp_path}/runs/x does not exist: give the folder that `distprof run` writes into\n"
    )
    (tmp_path / "runs" / "x").mkdir(parents=True)
    assert "was the job started with --no-daemon?" in here(command, tmp_path / "runs" / "x").stderr


def rank(number: int) -> RankView:
    values: dict[str, Any] = {
        "rank": number,
        "world_size": 8,
        "local_rank": number,
        "pid": 100,
        "host": "node-17.cluster.example",
        "place": f"dp {number}, tp 0, pp 1",
        "device": "cpu",
        "state": "timed",
        "iteration": 123_456,
        "age_s": 0.1,
        "limit_s": 60.0,
        "iteration_ns": 10**8,
        "median_ns": 10**8,
        "p99_ns": 10**8,
        "window": 1,
        "window_end": 9,
        "phase": "backward",
        "module": "model.layers.17.mlp.experts.down_proj",
        "activity_age_s": 0.2,
        "data_ns": 10**7,
        "timed_ns": 10**8,
        "samples": 4,
        "peak_bytes": None,
        "resident_bytes": 1 << 30,
        "error": "",
        "request": 0,
        "request_window": 0,
        "refusal": "",
        "slowest_in": 3,
        "sampled": 50,
        "wait_share": 0.1,
        "collective_group": "mesh_tp",
        "collective_op": "reduce_scatter",
        "collective_number": 12_345,
        "collective_runs": True,
    }
    status = RankStatus(**values)
    return RankView(status, 0.1, 10.0, 0, "stuck" if number == 3 else "")


def lines(width: int) -> list[str]:
    job = JobView(tuple(rank(number) for number in range(8)), (), 8)
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(drawn(job, "rank", width))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()[1:]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200, 400])
def test_a_narrow_terminal_shows_fewer_columns_and_those_legibly(width: int) -> None:
    head, *ranks = lines(width)
    assert all(cell_len(line) <= width for line in (head, *ranks)) and len(ranks) == 8
    shown = head.replace("data wait", "data_wait").split()
    assert {"rank", "iteration", "it/s", "state"} <= set(shown), head  # no name is cut
    assert all(str(number) == line.split()[0] and "123456" in line for number, line in enumerate(ranks))
    assert "stuck for 0 s" in ranks[3]
    if width >= 80:
        assert {"lag", "waits", "module", "collective"} <= set(shown)
    if width == 400:
        assert shown == [name.replace(" ", "_") for name in COLUMNS]
        assert "model.layers.17.mlp.experts.down_proj" in ranks[0]
