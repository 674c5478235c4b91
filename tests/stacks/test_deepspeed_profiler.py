"""Tests that distprof's profiler replaces DeepSpeed's by a change of the import only."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.forking.server import forking_python

pytestmark = pytest.mark.stack("deepspeed")

#: Compares the two, then runs distprof's profiler in DeepSpeed's own engine.
SCRIPT = """
import inspect, json
import torch
import deepspeed
import deepspeed.runtime.engine
from deepspeed.profiling.flops_profiler import profiler as theirs
import distprof

def spelled(function):
    parameters = inspect.signature(function).parameters.values()
    return [[one.name, repr(one.default), one.kind.name] for one in parameters]

methods = [name for name, _ in inspect.getmembers(theirs.FlopsProfiler, inspect.isfunction)]
signatures = {name: [spelled(getattr(of.FlopsProfiler, name, None)) for of in (theirs, distprof)]
              for name in methods if hasattr(distprof.FlopsProfiler, name)}
signatures["get_model_profile"] = [spelled(of.get_model_profile) for of in (theirs, distprof)]

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10))

options = dict(input_shape=(2, 1, 8, 8), print_profile=False, as_string=False)
totals = [of.get_model_profile(net(), **options) for of in (theirs, distprof)]

deepspeed.runtime.engine.FlopsProfiler = distprof.FlopsProfiler
flops_profiler = dict(enabled=True, profile_step=2, output_file="profile.txt", recompute_fwd_factor=0.5)
config = dict(train_micro_batch_size_per_gpu=2, wall_clock_breakdown=True, flops_profiler=flops_profiler,
              optimizer=dict(type="Adam", params=dict(lr=1e-3, torch_adam=True)))
model = net()
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
for _ in range(4):
    engine.backward(engine(torch.ones(2, 1, 8, 8)).sum())
    engine.step()
torch.distributed.destroy_process_group()
with open("found.json", "w") as file:
    json.dump({"missing": sorted(set(methods) - set(signatures)), "signatures": signatures, "totals": totals}, file)
"""
ENVIRONMENT = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> Path:
    """Returns the folder in which the script ran, once for all tests."""
    folder = tmp_path_factory.mktemp("deepspeed")
    ended = subprocess.run(
        [forking_python(clean_env), "-c", SCRIPT],
        cwd=folder,
        env={**clean_env, **ENVIRONMENT, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (folder / "found.json").exists(), ended.stderr[-3000:]
    return folder


@pytest.fixture
def found(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return read


def test_methods_and_arguments_match_deepspeed(found: dict[str, Any]) -> None:
    assert found["missing"] == ["is_expert_tensor_parallelism_enabled"]  # of its own printing alone
    ours, theirs = {}, {}
    for name, (of_theirs, of_ours) in found["signatures"].items():
        theirs[name], ours[name] = of_theirs, of_ours
    of_the_standalone_copy = ours["get_model_profile"].pop()
    assert of_the_standalone_copy == ["func_name", "'forward'", "POSITIONAL_OR_KEYWORD"]
    assert ours == theirs


def test_where_deepspeed_is_right_the_numbers_are_the_same(found: dict[str, Any]) -> None:
    (_, macs, params), (_, our_macs, our_params) = found["totals"]
    assert (our_macs, our_params) == (macs, params)


def test_deepspeeds_engine_drives_it(folder: Path) -> None:
    text = (folder / "profile.txt").read_text()
    forward = 2 * (4 * 36 * 9 + 144 * 10)
    assert "backward was not counted: bwd flops per rank are taken as 2 * fwd flops per rank" in " ".join(text.split())
    assert line(text, "batch size per rank") == "2"
    assert line(text, "fwd MACs per rank") == f"{forward / 1e3:.2f} KMACs"
    assert line(text, "bwd MACs per rank") == f"{2 * forward / 1e3:.2f} KMACs"
    latencies = [line(text, f"{name} latency") for name in ("fwd", "bwd", "step", "iter")]
    assert "n/a" not in latencies
    assert line(text, "samples/second") != "n/a"
    assert "(3): Linear(1.45 K" in text


def line(text: str, label: str) -> str:
    """Returns the value of one line of the summary."""
    (found,) = [row for row in text.splitlines() if row.startswith(f"{label}:")]
    return found.partition(":")[2].strip()
