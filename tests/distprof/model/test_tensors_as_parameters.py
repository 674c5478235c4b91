"""Models that run with tensors in place of their parameters, or that override the methods that list parameters."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import record
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from distprof.clock import SystemClock
from distprof.records import Counts, Parameters, Step

CASES = Path(__file__).parents[2] / "cases"


def run(case: str) -> dict[str, Any]:
    return runpy.run_path(str(CASES / f"{case}.py"))


@pytest.mark.parametrize(
    ("case", "iterations", "params", "forward"),
    [
        ("maml2_train", 20, 16 + 16 + 16 + 1, 2 * 2 * 8 * (16 + 16)),  # two calls for each of two tasks
        ("ens_train", 20, 3 * (4 * 8 + 8 + 8 + 1), 3 * 16 * (4 * 8 + 8)),
        ("parameters_overridden", 30, 8 * 8 + 8, 4 * 8 * 8),
    ],
)
def test_tensors_in_place_of_parameters_count(
    case: str, iterations: int, params: int, forward: int, tmp_path: Path
) -> None:
    """All work of an iteration equals the count of torch's own counter if there are only matrix products."""
    with FlopCounterMode(display=False) as torchs:
        plain = run(case)
    recorded: dict[str, Any] = {}
    seen = record(tmp_path, lambda: recorded.update(run(case)), warmup=2, count=True, timed=2, clock=SystemClock())
    assert recorded["final"] == plain["final"]
    counts = seen.one(Counts)
    assert counts.forward_macs.sum() == forward
    products = int(counts.forward_macs.sum() + counts.backward_macs.sum()) + sum(
        counts.outside.get(kind, 0) for kind in ("forward_macs", "backward_macs")
    )
    assert 2 * products == torchs.get_total_flops() / iterations
    (told,) = seen.of(Parameters)
    assert sum(one.rank_numel for one in told.parameters) == params
    assert all(one.trainable for one in told.parameters)
    assert seen.rows[0].total_params == params
    assert [len(seen.calls(step)) for step in range(len(seen.of(Step)))] == [len(seen.rows)] * 2


class Alien(nn.Module):
    """Every method that describes a module is overridden, and raises."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def fails(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("ask somebody else")

    parameters = named_parameters = modules = named_modules = children = named_children = buffers = fails

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


def test_no_method_of_a_model_is_called(tmp_path: Path) -> None:
    model = Alien()
    optimizer = torch.optim.SGD(model.linear.parameters(), 0.1)

    def step() -> None:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    def job() -> None:
        for _ in range(3):
            step()

    seen = record(tmp_path, job, count=True)
    assert seen.rows[0].total_params == 3 * 2 + 2
    assert seen.one(Counts).forward_macs.sum() == 6


def test_parameters_in_a_transform(tmp_path: Path) -> None:
    """Copies that only the transform holds: each of two equal ones counts."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    weights: dict[str, Tensor] = dict(model.named_parameters())

    def loss(own: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = functional_call(model, {name: value + 1 for name, value in own.items()}, (x,)).sum()
        return result

    transformed = torch.func.vmap(torch.func.grad(loss), (None, 0))
    seen = record(tmp_path, lambda: transformed(weights, torch.ones(5, 2)))
    assert seen.rows[0].total_params == 2 * 4
