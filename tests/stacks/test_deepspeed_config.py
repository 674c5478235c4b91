"""Tests of one config for DeepSpeed and for ``distprof run``: both profile the same iteration."""

from __future__ import annotations

import json

import pytest
from support.scripts import NewWorkplace

from distprof.records import Counts

pytestmark = pytest.mark.stack("deepspeed")

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


def test_both_profile_the_same_iteration(new_workplace: NewWorkplace) -> None:
    place = new_workplace().forking()
    place.write("train.py", TRAIN, prelude="")
    place.write("ds_config.json", json.dumps(CONFIG))
    ours = ["--config", "ds_config.json", "--name", "x", "--timed", "1", "--no-merge"]
    ended = place.distprof("run", *ours, "train.py", DS_ACCELERATOR="cpu")
    assert ended.code == 0, ended.err[-3000:]
    assert f"{MACS / 1e3:g} KMACs" in (place.folder / "theirs.txt").read_text()
    (shard,) = place.shards()
    (counts,) = [record for record in shard.records if isinstance(record, Counts)]
    assert (counts.iteration, sum(counts.forward_macs)) == (2, MACS)
