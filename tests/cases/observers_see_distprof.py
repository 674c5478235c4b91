"""What a script can see of a recorder: calls of its batch's own methods, ops in its function modes, and warnings
while it traces a module.

Its batch is a dict that notes who asks for all of its values, and may fail then; the script prints what it has noted.
"""

# ranks: 1
# arguments: counts
# arguments: fails

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FAILS = sys.argv[1:] == ["fails"]
calls: Counter[str] = Counter()
loads: list[int] = []


class Log(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        calls[str(getattr(func, "__qualname__", func))] += 1
        return func(*args, **(kwargs or {}))


class Lazy(dict[str, Tensor]):
    """A batch that loads what it is asked for."""

    def values(self) -> Any:
        loads.append(1)
        if FAILS:
            raise RuntimeError("nothing is loaded")
        return super().values()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        y: Tensor = self.linear(batch["x"])
        return y


torch.manual_seed(0)
model = Model()
optimizer = torch.optim.SGD(model.parameters(), 1e-2)
traced: list[str] = []
final = 0.0
for _ in range(20):
    with Log():
        loss = model(Lazy(x=torch.randn(4, 8))).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    final = loss.item()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.jit.trace(model.linear, torch.randn(2, 8))
    traced += [str(one.message) for one in told if one.category.__name__ == "TracerWarning"]
print("values() of the batch:", len(loads), "tracer warnings:", traced, "trained:", final)
