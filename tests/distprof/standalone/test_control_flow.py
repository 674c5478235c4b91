"""``FlopsProfiler`` over control flow that torch compiles by itself: gradients are those of a plain run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distprof import FlopsProfiler


class Branches(nn.Module):
    """A branch that captures parameters, as scripts write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = torch.cond(x.sum() > -1e9, lambda x: self.a(x).tanh(), lambda x: self.b(x).tanh(), (x,))
        return self.first(x) + branch


def gradients(*, profiled: bool) -> tuple[list[Tensor | None], int]:
    """Returns all gradients of a forward with a new shape, and the MACs that the profiler counted in it."""
    torch.manual_seed(0)
    model = Branches()
    model(torch.rand(4, 8)).sum().backward()
    model.zero_grad()
    profiler = FlopsProfiler(model)
    if profiled:
        profiler.start_profile()
    model(torch.rand(9, 8)).sum().backward()
    macs = int(profiler.get_total_macs()) if profiled else 0
    if profiled:
        profiler.end_profile()
    return [parameter.grad for parameter in model.parameters()], macs


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_gradients_of_branches_with_a_new_shape() -> None:
    plain, _ = gradients(profiled=False)
    torch._dynamo.reset()
    ours, macs = gradients(profiled=True)
    assert [grad is None for grad in ours] == [grad is None for grad in plain]
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True) if a is not None and b is not None)
    assert macs == 2 * 9 * 8 * 8
