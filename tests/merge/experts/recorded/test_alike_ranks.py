"""Ranks that host the same experts are added up before layers are looked at: the report is that of single ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.synthetic import write_run

from distprof.merge.analyse import analyse
from distprof.merge.analysis import start_analysis
from distprof.merge.experts.recorded import alike_ranks
from distprof.merge.experts.recorded.hosts import expert_hosts
from distprof.merge.load.run import load_run

TP = {"dp": 4, "tp": 2, "ep": 2, "experts": 4, "steps": 2}


@pytest.mark.parametrize(
    "job",
    [
        {"dp": 8, "ep": 4, "experts": 8, "layers": 4, "steps": 3, "hot": 3},
        {**TP, "noise": 0},
        {**TP, "noise": 0, "split_tokens": True},
        {**TP, "noise": 0.1},
        {**TP, "noise": 0.1, "tp_experts": True},
        {**TP, "noise": 0.1, "tp_experts": True, "pp": 2, "layers": 4},
    ],
    ids=["expert data parallel", "copies", "own tokens", "other tokens", "slices", "slices on stages"],
)
def test_the_report_is_that_of_single_ranks(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(write_run(tmp_path / "run", **job))
    together = analyse(run).experts
    monkeypatch.setattr(alike_ranks, "_key", lambda *_: None)
    assert together and together == analyse(run).experts


def test_ranks_with_the_same_experts_are_one_host(tmp_path: Path) -> None:
    def ranks_of(**job: Any) -> list[tuple[int, ...]]:
        analysis = start_analysis(load_run(write_run(tmp_path / str(job), **job)))
        return [hosts[0].ranks for _, hosts in expert_hosts(analysis)]

    assert ranks_of(dp=8, ep=4, experts=8, steps=2) == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert ranks_of(**TP, noise=0) == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert ranks_of(**TP, noise=0.1) == [(rank,) for rank in range(8)], "their experts saw other tokens"
