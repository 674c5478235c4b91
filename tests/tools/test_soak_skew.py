"""Tests of the soak's jobs with planted faults: the list of jobs, how a verdict is judged, and one real job."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.forking.soak import TOOLS, run_soak
from support.reports import report_of

from distprof.merge.export.json import to_json

Skew = Callable[[str], ModuleType]


@pytest.fixture
def skew(monkeypatch: pytest.MonkeyPatch) -> Skew:
    """``skew("judge")``: a module of that part of the soak."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return lambda name: import_module(f"soak.skew.{name}")


def case(skew: Skew, name: str) -> Any:
    (one,) = skew("cases").matching(name)
    return one


def said(skew: Skew, **fields: Any) -> Any:
    """A conclusion: nobody is named, unless ``fields`` say so."""
    nobody = skew("conclusions").Conclusion(
        finding="nobody stands out", named=(), one_of=(), subject="", phase="", excess_ns=None, cost_ns=None, cause="",
        group=(), iteration_ns=100e6, iterations=(5, 6, 7), overloaded_expert=None,
    )  # fmt: skip
    return dataclasses.replace(nobody, **fields)


def test_each_job_has_a_name_of_its_own(skew: Skew) -> None:
    cases = skew("cases").everything()
    assert len({one.name for one in cases}) == len(cases)
    assert {one.ranks for one in cases} == {2, 3, 4, 8, 16}
    assert all(one.culprits <= set(range(one.ranks)) for one in cases)


def test_who_has_the_fault(skew: Skew) -> None:
    assert case(skew, "fsdp2-fwd-w8-0a").culprits == {5}
    assert case(skew, "ddp_mlp-none-w8-0a").culprits == frozenset()
    assert case(skew, "tp-uneven-w8-0a").culprits == {4, 5}, "ranks of one tensor-parallel group read the same batch"
    assert case(skew, "ddp_gpt-half-w8-0a").culprits == {1, 3, 5, 7}
    assert len(case(skew, "ddp_gpt-two-w8-0a").culprits) == 2
    assert case(skew, "pp-link-w8-0a").slow_group == {1, 5}, "the pipeline of rank 5"
    assert case(skew, "moe-link-w8-0a").slow_group == {4, 5, 6, 7}


def test_layers_of_a_pipeline_are_numbered_through_its_stages(skew: Skew) -> None:
    first, second = (case(skew, f"pp-fwd-w{ranks}-0a") for ranks in (4, 8))
    assert (first.rank, first.module, first.module_label) == (1, "layers.0.ff", "layers.0.ff")
    assert (second.rank, second.module, second.module_label) == (5, "layers.0.ff", "layers.2.ff")


@pytest.mark.parametrize(
    ("name", "fields", "outcome"),
    [
        ("fsdp2-fwd-w8-0a", {"named": (5,)}, "right"),
        ("fsdp2-fwd-w8-0a", {"named": (4,)}, "wrong"),
        ("fsdp2-fwd-w8-0a", {"named": (4, 5)}, "wrong"),
        ("fsdp2-fwd-w8-0a", {"one_of": (4, 5)}, "abstained"),
        ("fsdp2-fwd-w8-0a", {"one_of": (3, 4)}, "wrong"),
        ("fsdp2-fwd-w8-0a", {}, "abstained"),
        ("fsdp2-none-w8-0a", {}, "right"),
        ("fsdp2-none-w8-0a", {"named": (5,)}, "wrong"),
        ("fsdp2-none-w8-0a", {"one_of": (4, 5)}, "wrong"),
        ("fsdp2-none-w8-0a", {"group": (5,), "cause": "busy processors"}, "right"),
        ("fsdp2-fwd-w8-0a", {"group": (5,), "cause": "busy processors"}, "abstained"),
        ("ddp_mlp-nice-w8-0a", {"group": (5,), "cause": "busy processors"}, "right"),
        ("ddp_gpt-link-w8-0a", {}, "right"),
        ("tp-link-w8-0a", {"group": (4, 5), "cause": "slow link"}, "right"),
        ("tp-link-w8-0a", {"group": (2, 3), "cause": "slow link"}, "wrong"),
        ("tp-link-w8-0a", {"named": (5,)}, "wrong"),
        ("ddp_gpt-half-w8-0a", {}, "right"),
        ("ddp_gpt-half-w8-0a", {"named": (1, 3, 5, 7)}, "wrong"),
        ("ddp_gpt-two-w8-0a", {"named": (5,)}, "abstained"),
        ("ddp_gpt-pause-w8-0a", {"named": (5,)}, "wrong"),
        ("ddp_gpt-pause-w8-0a", {"named": (5,), "cause": "a pause"}, "right"),
        ("ddp_gpt-late-w8-0a", {}, "right"),
        ("ddp_gpt-late-w8-0a", {"named": (5,)}, "right"),
        ("ddp_gpt-flaky-w8-0a", {"named": (4,)}, "wrong"),
        ("ddp_gpt-staircase-w8-0a", {"named": (7,)}, "wrong"),
        ("ddp_gpt-pair-w8-0a", {"named": (0, 5)}, "right"),
        ("moe-hot-w8-0a", {"overloaded_expert": 10}, "right"),
        ("moe-hot-w8-0a", {"overloaded_expert": 2}, "abstained"),
    ],
)
def test_how_ranks_are_judged(skew: Skew, name: str, fields: dict[str, Any], outcome: str) -> None:
    assert skew("judge").judge_ranks(case(skew, name), said(skew, **fields)) == outcome


def test_place_and_cost_are_judged_where_the_rank_is_right(
    skew: Skew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, one = skew("judge"), case(skew, "fsdp2-fwd-w8-0a")
    (tmp_path / "lost5.json").write_text(json.dumps({"4": 9, "5": 40e6, "6": 20e6, "7": 30e6}))
    (tmp_path / "blocks.json").write_text(json.dumps([120e6, 101e6, 121e6, 100e6, 119e6, 99e6]))
    found: dict[str, Any] = {"named": (5,), "subject": "layers.1.ff", "phase": "forward", "excess_ns": 24e6}
    changes: list[tuple[dict[str, Any], tuple[object, ...]]] = [
        ({}, ("right", True, 0.8, None)),
        ({"subject": "layers.2.ff"}, ("right", False, 0.8, None)),
        ({"cost_ns": 30e6}, ("right", True, 0.8, 1.5)),
        ({"cost_ns": 30e6, "processor_share": 0.3}, ("right", True, 0.8, None)),
        ({"named": (4,)}, ("wrong", None, None, None)),
        ({"named": ()}, ("abstained", None, None, None)),
        ({"named": (), "iteration_ns": 800e6}, ("too small", None, None, None)),
    ]
    for change, expected in changes:
        conclusion = said(skew, **{**found, **change})
        monkeypatch.setattr(judge, "conclude", lambda run, conclusion=conclusion: conclusion)
        judged = judge.judge(one, tmp_path, "run")
        assert (judged.outcome, judged.place, judged.excess, judged.cost) == expected
        assert judged.lost_ms == 30, "the median over the timed steps"
    (tmp_path / "blocks.json").write_text(json.dumps([120e6, 101e6, 150e6, 100e6, 119e6, 99e6]))
    conclusion = said(skew, **found, cost_ns=30e6)
    monkeypatch.setattr(judge, "conclude", lambda run: conclusion)
    assert judge.judge(one, tmp_path, "run").cost is None, "the blocks of iterations differ too much"


@pytest.mark.parametrize(
    ("longer_ms", "outcome"), [((60, 61, 59), "abstained"), ((180, -172, 179), "too small"), ((), "abstained")]
)
def test_a_fault_whose_loss_is_not_measured_is_large_if_iterations_are_longer_beyond_their_noise(
    skew: Skew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longer_ms: Sequence[float], outcome: str
) -> None:
    judge, nobody = skew("judge"), said(skew, iteration_ns=1e9)
    blocks = [ns for ms in longer_ms for ns in (1e9 + ms * 1e6, 1e9)]
    (tmp_path / "blocks.json").write_text(json.dumps(blocks))
    monkeypatch.setattr(judge, "conclude", lambda run: nobody)
    assert judge.judge(case(skew, "ddp_mlp-throttle-w8-0a"), tmp_path, "run").outcome == outcome


def test_a_run_that_cannot_be_merged_has_failed(skew: Skew, tmp_path: Path) -> None:
    judged = skew("judge").judge(case(skew, "fsdp2-fwd-w8-0a"), tmp_path, "run")
    assert judged.outcome == "failed"
    assert "fsdp2-fwd-w8-0a: failed" in skew("tables").tables([judged])


def test_what_a_report_concludes(skew: Skew) -> None:
    report = json.loads(to_json(report_of()))
    conclusion = skew("conclusions").read_conclusion(report)
    verdict = report["verdict"]["ranks"]
    assert conclusion.finding == verdict["finding"]
    assert {*conclusion.named, *conclusion.one_of} == {one["rank"] for one in verdict["named"]}
    assert conclusion.processor_share is None, "a synthetic run has no waits for processors"
    report["ranks"][0] |= {"step_processor_waits_ns": [20, 30], "step_durations_ns": [100, 100]}
    assert skew("conclusions").read_conclusion(report).processor_share == 0.25
    assert conclusion.iterations, "the timed steps, by their numbers"


@pytest.mark.slow
def test_a_job_is_recorded_once_and_judged_again(
    skew: Skew, tmp_path: Path, clean_env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "ddp_mlp-fwd-w4-0a"
    words = ("--only", "skew", "--skew", name, "--keep", tmp_path)
    assert "not all ranks ended well" not in run_soak(clean_env, *words)
    shards = sorted((tmp_path / name / "run" / "shards").iterdir())
    assert len(shards) == 4
    lost = json.loads((tmp_path / name / "lost1.json").read_text())
    assert len(lost) == 16 and min(lost.values()) >= 30e6, "in each iteration, what the rank slept"
    before = [(path.name, path.stat().st_mtime_ns) for path in shards]
    skew("run").judge_kept(tmp_path, "*", import_module("soak.console_output").Progress(io.StringIO()))
    assert [(path.name, path.stat().st_mtime_ns) for path in shards] == before
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("fwd ")]
    assert [row[:2] for row in rows] == [["fwd", "1"]]
    assert rows[0][6] == "0", "failed"
