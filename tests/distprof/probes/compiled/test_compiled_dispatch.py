"""A MoE layer whose dispatch is an all-to-all in compiled code: the report says that nothing is seen of its loads."""

from __future__ import annotations

import json

import pytest
from support.scripts import NewWorkplace

SCRIPT = """
import json, pathlib
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as fc
from torch import nn

class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 8, 8))

    def forward(self, x):
        return torch.einsum("td,edf->tf", x, self.weight)

class MoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(8, 4), Experts()

    def forward(self, x):
        scores, ids = self.gate(x).softmax(-1).max(-1)
        sent = torch.bincount(ids // 2, minlength=2)
        got = fc.all_to_all_single(sent, None, None, dist.group.WORLD)
        there, back = sent.tolist(), got.tolist()
        received.append(sum(back))
        order = ids.argsort(stable=True)
        given = fc.all_to_all_single_autograd(x[order] * scores[order, None], back, there, dist.group.WORLD)
        return fc.all_to_all_single_autograd(self.experts(given), there, back, dist.group.WORLD)

dist.init_process_group("gloo")
rank, received = dist.get_rank(), []
torch.manual_seed(rank)
model = nn.Sequential(nn.Linear(8, 8), MoE())
model[1].compile(backend="eager")
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
x = torch.randn(24, 8)
for _ in range(6):
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
pathlib.Path(f"received{rank}.json").write_text(json.dumps(received))
"""


@pytest.mark.slow
def test_sizes_of_an_all_to_all_are_no_loads(new_workplace: NewWorkplace) -> None:
    place = new_workplace().forking()
    place.write("job.py", SCRIPT, prelude="")
    ended = place.run("--nproc", 2, "job.py", timed=2)
    assert ended.code == 0, ended.err
    report = place.report()
    first, second = (json.loads((place.folder / f"received{rank}.json").read_text()) for rank in range(2))
    assert first[-1] != second[-1] and first[-1] + second[-1] == 48
    (layer,) = report.experts
    assert (layer.name, set(layer.tokens), layer.ep_tokens, layer.dead) == ("1", {None}, (), ())
    assert any(note.startswith("compiled, not seen: tokens of experts are n/a in 1: ") for note in report.run.notes)
