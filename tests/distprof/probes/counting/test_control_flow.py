"""Tests of control flow, which torch compiles itself: its gradients under a recorder, and its work."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from support.recording import record
from torch import Tensor, nn
from torch._higher_order_ops.map import map as mapped
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from distprof.records import Counts, End, Error

WIDTH, ROWS, ROUNDS = 8, 3, 4
LINEAR = ROWS * WIDTH * WIDTH
STEPS, COUNTED = 4, 1

pytestmark = pytest.mark.usefixtures("fresh_compiler")


class Flow(nn.Module):
    def __init__(self, flow: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        return self.flow(self.linear, x)


def by_cond(linear: nn.Linear, x: Tensor) -> Tensor:
    y: Tensor = torch.cond(x.sum() > -1e9, lambda x: linear(x), torch.sin, (x,))  # noqa: PLW0108
    return y


def by_map(linear: nn.Linear, x: Tensor) -> Tensor:
    y: Tensor = mapped(lambda row, *_: linear(row), x)
    return y


def by_scan(linear: nn.Linear, x: Tensor) -> Tensor:
    y: Tensor = scan(lambda carry, row: (linear(carry) + row, row + 1), torch.zeros(WIDTH), x)[0]
    return y


def by_while_loop(linear: nn.Linear, x: Tensor) -> Tensor:
    rounds = torch.tensor(0)
    y: Tensor = while_loop(lambda i, h: i < ROUNDS, lambda i, h: (i + 1, linear(h)), (rounds, x))[1]
    return y


def gradients(model: nn.Module) -> list[Any]:
    return [None if p.grad is None else [one.hex() for one in p.grad.flatten().tolist()] for p in model.parameters()]


def training(flow: Callable[[nn.Linear, Tensor], Tensor], arrives: int, fullgraph: bool) -> list[Any]:
    """Returns the gradients of every parameter in each step; at step ``arrives`` the batch has one more row."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Flow(flow)
    running: Any = torch.compile(model, backend="aot_eager", fullgraph=True) if fullgraph else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen = []
    for step in range(STEPS):
        running(torch.randn(ROWS + (step == arrives), WIDTH)).square().sum().backward()
        seen.append(gradients(model))
        optimizer.step()
        optimizer.zero_grad()
    return seen


@functools.cache
def training_alone(flow: Callable[[nn.Linear, Tensor], Tensor], arrives: int, fullgraph: bool) -> list[Any]:
    """Returns what ``training`` returns where nothing is recorded; tests share it."""
    return training(flow, arrives, fullgraph)


FLOWS = [(by_cond, 1), (by_map, 1), (by_scan, 1), (by_while_loop, ROUNDS)]


@pytest.mark.parametrize("eager", [False, True], ids=["as compiled", "in eager form"])
@pytest.mark.parametrize("arrives", [COUNTED, COUNTED + 1], ids=["in the counted step", "in a timed step"])
@pytest.mark.parametrize(("flow", "times"), FLOWS)
def test_gradients_are_the_same_and_bodies_are_counted(
    tmp_path: Path, flow: Any, times: int, arrives: int, eager: bool
) -> None:
    alone = training_alone(flow, arrives, fullgraph=False)
    assert all(one is not None for step in alone for one in step)
    watched: list[Any] = []
    seen = record(
        tmp_path,
        lambda: watched.extend(training(flow, arrives, fullgraph=False)),
        warmup=COUNTED,
        count=True,
        timed=2,
        count_eager=eager,
    )
    assert watched == alone
    assert not seen.of(Error)
    assert seen.one(End).reason == "window complete"
    counts = seen.one(Counts)
    rows = ROWS + (arrives == COUNTED)
    assert int(counts.forward_macs.sum()) == times * LINEAR * rows // ROWS
    assert counts.uncounted == {}


@pytest.mark.parametrize("eager", [False, True], ids=["as compiled", "in eager form"])
def test_control_flow_inside_of_a_compiled_model(tmp_path: Path, eager: bool) -> None:
    alone = training_alone(by_cond, COUNTED, fullgraph=True)
    watched: list[Any] = []
    seen = record(
        tmp_path,
        lambda: watched.extend(training(by_cond, COUNTED, fullgraph=True)),
        warmup=COUNTED,
        count=True,
        timed=2,
        count_eager=eager,
    )
    assert watched == alone
    assert not seen.of(Error)
