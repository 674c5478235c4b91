"""A script sets torch.compiler's stance itself after its model was compiled: in no step compiled code runs that it has
switched off, and the exception that it asks for comes in every step.
"""
# ranks: 1
# arguments: force_eager
# arguments: fail_on_recompile

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

ran: list[int] = []


def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        ran.append(step)
        return graph(*args)

    return run


torch.manual_seed(0)
step = 0
model = nn.Linear(8, 4)
compiled = torch.compile(model, backend=backend, dynamic=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses, refused = [], []
for step in range(10):
    if step == 1:
        torch.compiler.set_stance(sys.argv[1])
    x = torch.randn(4, 8)
    loss = compiled(x).square().mean()
    if step and sys.argv[1] == "fail_on_recompile":
        try:
            compiled(torch.randn(4 + step, 8))
        except RuntimeError:
            refused.append(step)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
torch.compiler.set_stance("default")
print(losses, "compiled code ran in", ran, "refused in", refused)
