"""Tests of one config for DeepSpeed and for ``distprof run``: both profile the same iteration."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distprof.records import Counts
from distprof.shard.reader import read_shard

pytestmark = pytest.mark.stack("deepspeed")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SECTION = {"enabled": True, "profile_step": 2, "module_depth": 0, "output_file": "theirs.txt"}
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "optimizer": {"type": "Adam", "params": {"lr": 1e-3, "torch_adam": True}},
    "flops_profiler": SECTION,
}
#: Each iteration has one row more than the one before, so that its MACs tell which it is.
TRAIN = """
import deepspeed, torch
model = torch.nn.Sequential(torch.nn.Linear(64, 100, bias=False))
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config="ds_config.json")
for iteration in range(5):
    engine.backward(engine(torch.ones(1 + iteration, 64)).sum())
    engine.step()
torch.distributed.destroy_process_group()
"""
MACS = 3 * 64 * 100  # of iteration 2


def test_both_profile_the_same_iteration(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "ds_config.json").write_text(json.dumps(CONFIG))
    ours = ["--config", "ds_config.json", "--name", "x", "--timed", "1", "--no-merge"]
    ended = cli("run", *ours, "train.py", env={"DS_ACCELERATOR": "cpu"})
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert f"{MACS / 1e3:g} KMACs" in (tmp_path / "theirs.txt").read_text()
    shard = read_shard(tmp_path / "runs" / "x" / "shards" / "rank00000.g0.msgpack")
    (counts,) = [record for record in shard.records if isinstance(record, Counts)]
    assert (counts.iteration, sum(counts.forward_macs)) == (2, MACS)
