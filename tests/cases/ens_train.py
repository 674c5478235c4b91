"""An ensemble of models trained as one under ``vmap``: the module that runs is a copy of one of them on ``meta``.

Its parameters are shown one member's at a time; all members' lie stacked in tensors that no module holds.
"""

# ranks: 1

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

torch.manual_seed(0)
models = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(3)]
parameters, buffers = stack_module_state(models)
base = copy.deepcopy(models[0]).to("meta")
optimizer = torch.optim.Adam(parameters.values(), lr=1e-2)


def member(own: Mapping[str, Tensor], rest: Mapping[str, Tensor], x: Tensor) -> Tensor:
    result: Tensor = functional_call(base, (dict(own), dict(rest)), (x,))
    return result


final = 0.0
for _ in range(20):
    x = torch.randn(16, 4)
    optimizer.zero_grad()
    loss = vmap(member, (0, 0, None))(parameters, buffers, x).pow(2).mean()
    loss.backward()
    optimizer.step()
    final = loss.item()
print("done", final)
