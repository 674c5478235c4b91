"""``distprof.record_experts()``: the script counts what nothing can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loops import training
from torch import Tensor, nn

import distprof
from distprof.records import Error, ExpertLayers, ExpertRouting
from distprof.run_folder import RunFolder
from distprof.shard.reader import Shard, read_shard


class Opaque(nn.Module):
    """Hides its choice; ``counts`` are told in its forward."""

    def __init__(self, counts: Any) -> None:
        super().__init__()
        self.inner, self.counts = nn.Linear(8, 8), counts

    def forward(self, x: Tensor) -> Tensor:
        distprof.record_experts(self, self.counts)
        y: Tensor = self.inner(x)
        return y


def shard(folder: Path, model: nn.Module, **settings: Any) -> Shard:
    with distprof.record(out=folder, name="run", count=False, **settings) as run:
        training(4, model)()
    (file,) = RunFolder(Path(run)).shard_files()
    return read_shard(file)


@pytest.mark.parametrize("counts", [[3, 0, 5], torch.tensor([3, 0, 5])])
@pytest.mark.parametrize("warmup", [0, 1])
def test_counts_of_the_script(tmp_path: Path, counts: Any, warmup: int) -> None:
    made = shard(tmp_path, nn.Sequential(Opaque(counts)), warmup=warmup, timed=2)
    layers = [record for record in made.records if isinstance(record, ExpertLayers)][-1].layers
    assert [(layer.name, layer.num_experts, layer.local_experts) for layer in layers] == [("0", 3, ())]
    routings = [record for record in made.records if isinstance(record, ExpertRouting)]
    assert [one.layers[0].routed.tolist() for one in routings] == [[3, 0, 5]] * 2
    (layer,) = distprof.load(tmp_path / "run").report.experts
    assert (layer.routed, layer.tokens, layer.dead) == ((6, 0, 10), (6, 0, 10), (1,))


def test_wrong_counts_only_leave_the_layer_out(tmp_path: Path) -> None:
    model = nn.Sequential(Opaque([1, 2]))
    model[0].register_forward_pre_hook(lambda layer, _: setattr(layer, "counts", [*layer.counts, 1]))
    made = shard(tmp_path, model, warmup=0, timed=2)
    assert not [record for record in made.records if isinstance(record, Error)]
    (first,) = [record for record in made.records if isinstance(record, ExpertRouting)]
    assert (first.iteration, first.layers[0].routed.tolist()) == (0, [1, 2, 1]), "a layer of three experts"


def test_without_a_recorder() -> None:
    distprof.record_experts(nn.Linear(1, 1), [1])
    assert json.dumps(distprof.__all__).count("record_experts") == 1
