"""Tests of the job of ``make demo``: eight ranks, one slow, some experts hot, and a report that finds them."""

from __future__ import annotations

import re
from importlib import import_module
from statistics import median
from typing import Any

import pytest
from support.examples import EXAMPLES
from support.jobs import Recorded, RunJob
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.alone
SLOW_RANK, SLOW_MS = 5, 160.0  # a good part of an iteration on a slow machine, too


@pytest.fixture(scope="module")
def demo(record_job: RunJob) -> Recorded:
    slow = ["--slow-rank", str(SLOW_RANK), "--slow-ms", str(SLOW_MS)]
    job = record_job("train_moe.py", "--steps", "20", "--skew", *slow, "--print-params", "--stopwatch", nproc=8)
    assert job.code == 0, job.stderr
    return job


@pytest.fixture(scope="module")
def report(demo: Recorded) -> dict[str, Any]:
    return demo.merge()


@pytest.fixture(scope="module")
def two_ranks(record_job: RunJob) -> Recorded:
    """A job of the same model without tensor parallelism, with a core for every rank."""
    job = record_job("train_moe.py", "--steps", "20", "--tp", "1", "--ep", "2", "--stopwatch", nproc=2)
    assert job.code == 0, job.stderr
    return job


def test_all_ranks_are_recorded_and_merge_is_suggested(demo: Recorded) -> None:
    assert demo.stderr.strip().splitlines()[-1] == (
        "distprof: 8 of 8 ranks recorded in runs/x  ->  distprof merge runs/x"
    )


def test_the_topology_is_read_from_the_meshes(report: dict[str, Any]) -> None:
    assert report["topology"]["source"] == "device_mesh"
    assert report["topology"]["sizes"] == {"dp": 4, "tp": 2, "pp": 1, "cp": 1, "ep": 8, "mp": 2}
    for row in report["ranks"]:
        rank, places = row["rank"], row["coordinates"]
        assert (places["dp"], places["tp"], places["ep"], places["mp"]) == (rank // 2, rank % 2, rank, rank % 2)


def test_self_time_map_peaks_at_the_slow_module(report: dict[str, Any]) -> None:
    skew = report["skew"]["map"]
    cells = [
        (excess, rank, module, phase)
        for rank, row in zip(skew["ranks"], skew["excess_ns"], strict=True)
        for module, phase, excess in zip(skew["subjects"], skew["phases"], row, strict=True)
        if excess is not None
    ]
    excess, rank, module, phase = max(cells)
    assert (rank, module, phase) == (SLOW_RANK, "blocks.3.moe", "forward")
    assert SLOW_MS * 0.95 < excess / 1e6 < SLOW_MS * 1.5
    assert (report["skew"]["modules"][0]["slowest_rank"], report["skew"]["modules"][0]["subject"]) == (rank, module)


def test_the_hot_experts_are_those_that_were_made_hot(demo: Recorded, report: dict[str, Any]) -> None:
    made_hot = {}
    for line in demo.job.after("hot experts:"):
        name, _, experts = line.partition(":")
        made_hot[name] = {int(expert) for expert in experts.split()}
    assert set(made_hot) == {layer["name"] for layer in report["experts"]} == {"blocks.1.moe", "blocks.3.moe"}
    for layer in report["experts"]:
        hot = made_hot[layer["name"]]
        ranked = sorted(range(layer["num_experts"]), key=lambda expert: -layer["tokens"][expert])
        assert set(ranked[: len(hot)]) == hot
        assert layer["max_over_mean"] > 2


def test_every_token_goes_to_two_experts(report: dict[str, Any]) -> None:
    for layer in report["experts"]:
        assert sum(layer["tokens"]) == 2 * 16 * 64 * layer["steps"]  # top-2, 16 sequences of 64 tokens a step


def test_params_of_model_are_exact(demo: Recorded, report: dict[str, Any]) -> None:
    (whole,) = demo.job.after("params of model:")
    assert report["summary"]["params_exact"] == int(whole)
    assert report["summary"]["exact_covers_all"] is True


@pytest.fixture(scope="module")
def counted_by_torch() -> int:
    """Returns the flops of the whole model's forward on one step's batch, counted by torch in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        moe_model, train_moe = import_module("moe_model"), import_module("train_moe")
        shape = moe_model.Shape()
        model, data = moe_model.GPT(shape), train_moe.Sequences(16, shape.sequence)
        with FlopCounterMode(display=False) as counter:
            model(*default_collate([data[sample] for sample in range(16)]))
    return counter.get_total_flops()


def test_forward_macs_equal_flop_counter_mode(
    report: dict[str, Any], two_ranks: Recorded, counted_by_torch: int
) -> None:
    """Summed over the ranks: tensor parallelism halves matmuls, expert parallelism splits tokens and data parallelism
    sequences, so the ranks together do the model's work once.
    """
    for merged in (report, two_ranks.merge("--no-plots")):
        assert sum(row["fwd_macs"] for row in merged["ranks"]) * 2 == counted_by_torch


def test_phases_agree_with_the_stopwatches_in_the_script(two_ranks: Recorded) -> None:
    """Within 5 % (and what closing a step takes: it is inside the optimizer's step), step by step, in the median.
    With a core for every rank: one that loses its core in between is timed with the wait by the one, without by the
    other.
    """
    for watch in two_ranks.job.stopwatches:
        steps = two_ranks.steps(watch["rank"])
        assert len(steps) == 10
        for phase in ("data", "forward", "backward", "optimizer"):
            theirs = [watch[phase][step.iteration] for step in steps]
            apart = [lap - step.phases_ns[phase] / 1e6 for lap, step in zip(theirs, steps, strict=True)]
            assert abs(median(apart)) <= 0.05 * median(theirs) + 0.5, (watch["rank"], phase, apart, theirs)


def test_other_is_under_five_per_cent_and_phases_add_up(demo: Recorded) -> None:
    for rank in range(8):
        steps = demo.steps(rank)
        assert all(sum(step.phases_ns.values()) == step.duration_ns for step in steps)
        assert median(step.phases_ns["other"] / step.duration_ns for step in steps) < 0.05


def test_merging_twice_gives_the_same_bytes(demo: Recorded, report: dict[str, Any]) -> None:
    def everything() -> dict[str, bytes]:
        folder = demo.run / "report"
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    first = everything()
    demo.merge()
    assert first == everything()
    assert {"summary.txt", "summary.json", "plots/skew_map.png", "plots/expert_load.svg"} <= set(first)


def test_the_text_has_deepspeeds_lines(demo: Recorded, report: dict[str, Any]) -> None:
    text = (demo.run / "report" / "summary.txt").read_text(encoding="utf-8")
    for line, value in (("world size", "8"), ("data parallel size", "4"), ("model parallel size", "2")):
        assert re.search(rf"^{line}:\s+{value}\s*$", text, re.MULTILINE), line
    assert "params of model = params per rank * mp_size" in text
    assert re.search(r"slowest: rank 5, forward of blocks\.3\.moe", text)
