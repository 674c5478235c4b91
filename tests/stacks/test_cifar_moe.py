"""Tests of DeepSpeed's CIFAR-10 MoE training on four ranks, compared with DeepSpeed's own profile of one rank."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.scripts import Workplace
from support.stacks_page import HOUSE

from distprof.records import Counts, ExpertRouting
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard

pytestmark = pytest.mark.stack("deepspeed")

#: The command of the README.
COMMAND = "distprof run --merge --nproc 4 examples/cifar_moe.py"
#: The test's additions: no steps after the window, and DeepSpeed's own profile.
QUICK = ("--steps", "17", "--deepspeed-profile", "theirs")
STEPS, BATCH, RANKS = 10, 16, 4
#: Calculated by hand: (weights + biases) of each module.
LINEAR = 84 * 84 + 84
EXPERTS = (4 + 8) * LINEAR
ROUTERS = 4 * 84 + 8 * 84
COEFFICIENTS = 2 * (84 * 2 + 2)
REST = (6 * 3 * 25 + 6) + (16 * 6 * 25 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
WHOLE = EXPERTS + ROUTERS + COEFFICIENTS + LINEAR + REST  # the dense module beside the experts once
#: Lines of DeepSpeed's report for which distprof has other words: exact totals, by kind.
OTHER_WORDS = {"expert tensor parallelism enabled", "non-expert params of model", "expert params of model"}


@dataclass(frozen=True)
class Job:
    ours: str
    theirs: str
    report: dict[str, Any]
    kept: int  # choices of the counted iteration that were not dropped, on all ranks


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> Job:
    """Runs the README's command with DeepSpeed's own profiler; returns both outputs and the report."""
    folder = tmp_path_factory.mktemp("cifar")
    _, *arguments = COMMAND.split()
    words = (*arguments[:-1], HOUSE / arguments[-1], *QUICK)
    place = Workplace(folder, clean_env).forking()
    done = place.start_distprof(*words, DS_ACCELERATOR="cpu", DISTPROF_PLOTS="0", DISTPROF_FULL="1").wait(600)
    assert done.code == 0, done.err[-3000:]
    (run,) = (folder / "runs").iterdir()
    report = json.loads((run / "report" / "summary.json").read_text())
    ours = done.out[done.out.index(" distprof ---") :]
    return Job(ours, (folder / "theirs").read_text(), report, sum(map(kept_choices, RunFolder(run).shard_files())))


def kept_choices(shard: Path) -> int:
    records = read_shard(shard).records
    (counted,) = (record.iteration for record in records if isinstance(record, Counts))
    routings = [one for one in records if isinstance(one, ExpertRouting) and one.iteration == counted]
    return sum(int(layer.routed.sum()) - int(layer.dropped.sum()) for one in routings for layer in one.layers)


def summary(text: str) -> dict[str, str]:
    """Returns values by label, up to the formula; DeepSpeed calls a rank a GPU."""
    found = re.findall(r"^([^\n:={(]+?)(?: = [^\n:]*)?: +(\S[^\n]*?)\s*$", text, re.MULTILINE)
    return {label.strip().replace("per GPU", "per rank"): value for label, value in reversed(found)}


def aggregated(text: str, what: str) -> list[dict[str, str]]:
    """Returns for each depth the top classes and their figures."""
    lines = re.findall(rf"^    {what} +- (.*)$", text, re.MULTILINE)
    return [dict(re.findall(r"'([^']+)': '([^']+)'", line)) for line in lines]


def blocks(text: str) -> set[str]:
    return {
        title.replace("per GPU", "per rank") for title in re.findall(r"^-{5,} (.*Profile.*) -{5,}$", text, re.MULTILINE)
    }


def test_the_readme_names_the_command() -> None:
    assert COMMAND in (HOUSE / "README.md").read_text(encoding="utf-8")


def test_every_block_and_line_of_deepspeeds_is_there(job: Job) -> None:
    theirs, ours = summary(job.theirs[: job.theirs.index("Aggregated")]), summary(job.ours)
    assert len(theirs) > 18
    assert theirs.keys() - ours.keys() == OTHER_WORDS
    wanted = blocks(job.theirs) - {"DeepSpeed Flops Profiler"}
    assert len(wanted) == 2 and wanted <= blocks(job.ours)
    of_one_rank = ("world size", "data parallel size", "batch size per rank", "params per rank", "fwd MACs per rank")
    assert [ours[label] for label in of_one_rank] == [theirs[label] for label in of_one_rank]


def test_modules_have_the_parameters_that_deepspeed_finds(job: Job) -> None:
    theirs, ours = aggregated(job.theirs, "params"), aggregated(job.ours, "params")
    assert len(theirs) == 6
    for depth, named in enumerate(theirs):
        assert named.items() <= ours[depth].items()


def test_all_ranks_are_told_of(job: Job) -> None:
    rows = job.report["ranks"]
    assert [(row["rank"], row["steps"]) for row in rows] == [(rank, STEPS) for rank in range(RANKS)]
    assert "4 of 4 ranks recorded" in job.ours
    assert job.report["topology"]["sizes"]["ep_size_2"] == 2
    of_forward = job.report["summary"]["fwd_latency_ns"]
    assert 0 < of_forward["min"] <= of_forward["median"] <= of_forward["max"]


def test_parameters_are_those_of_the_model_built_whole(job: Job) -> None:
    found, model = job.report["summary"], job.report["model"]
    assert WHOLE == 156_174
    assert (found["params_exact"], found["exact_covers_all"]) == (WHOLE, True)
    assert model["params_by_kind"] == {
        "dense": REST + COEFFICIENTS, "expert": EXPERTS, "shared": LINEAR, "router": ROUTERS
    }  # fmt: skip
    assert model["active_params"] == WHOLE - EXPERTS + 2 * LINEAR, "one expert of each layer"
    assert summary(job.theirs)["expert params of model"] == "85.68 K", "DeepSpeed scales its experts to the same"
    assert summary(job.theirs)["params of model"] == "156.17 K"


def test_useful_forward_work_is_that_of_the_model_built_whole(job: Job) -> None:
    """Each layer counts its router, its dense module, the coefficients between that and the experts, and one expert for
    each token that it keeps.
    """
    layers = sum(84 * experts + 84 * 84 + 84 * 2 for experts in (4, 8))
    linears = 400 * 120 + 120 * 84 + 84 * 10
    convolutions = 28 * 28 * 6 * 3 * 25 + 10 * 10 * 16 * 6 * 25
    assert 0 < job.kept < 2 * RANKS * BATCH, "some choices are dropped"
    whole = BATCH * (convolutions + linears + layers) + job.kept / RANKS * 84 * 84
    assert job.report["model"]["forward"]["useful_macs"] == whole


def test_tokens_of_experts(job: Job) -> None:
    layers = job.report["experts"]
    assert [(layer["name"], layer["num_experts"]) for layer in layers] == [
        ("moe_layer_list.0", 4),
        ("moe_layer_list.1", 8),
    ]
    for layer in layers:
        capacity = -(-BATCH // layer["num_experts"])
        assert (layer["top_k"], layer["steps"]) == (1, STEPS)
        assert sum(layer["routed"]) == RANKS * BATCH * STEPS
        assert sum(layer["tokens"]) == sum(layer["routed"]) - layer["dropped"]
        assert layer["dropped"] > 0 and layer["drop_rate"] == layer["dropped"] / sum(layer["routed"])
        assert all(
            kept <= min(chosen, capacity * RANKS * STEPS)
            for kept, chosen in zip(layer["tokens"], layer["routed"], strict=True)
        )
        half = layer["num_experts"] // 2
        assert layer["ep_tokens"] == [sum(layer["tokens"][:half]), sum(layer["tokens"][half:])]
        assert layer["expert_ranks"] == [[0, 2]] * half + [[1, 3]] * half
        assert layer["aux_loss"] > 0
