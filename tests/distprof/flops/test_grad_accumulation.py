"""autograd's own sums of gradients are no module's work; additions by its nodes are.

The number of sums follows from the graph: k - 1 where k gradients arrive at one input of a node.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distprof.flops import grad_accumulation
from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode

N = 6


def sums_in(output: Tensor) -> int:
    """Returns the number of the engine's sums that the graph of ``output`` implies."""
    edges: Counter[Any] = Counter()
    nodes, todo = set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            edges.update(edge for edge in node.next_functions if edge[0] is not None)
            todo += [edge[0] for edge in node.next_functions]
    return sum(count - 1 for count in edges.values())


class Both(torch.autograd.Function):
    """Its backward adds two numbers an element, in Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient + gradient


def hooked(x: Tensor) -> Tensor:
    """Returns a tensor whose gradient passes a hook that adds."""
    y = x.sin()
    y.register_hook(lambda gradient: gradient + 1)
    return y


def shared_weight(x: Tensor) -> Tensor:
    linear = nn.Linear(N, N, bias=False)
    return linear(linear(linear(x)))


def residual(x: Tensor) -> Tensor:
    for _ in range(3):
        x = x + F.layer_norm(x, (N,)).tanh()
    return x


#: Function of N x N -> flops of its backward beside MACs, without the engine's sums.
USES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "two functions": (lambda h: h.sin() + h.cos(), 2 + 3),  # cos, mul; sin, neg, mul
    "two operands": (lambda h: h * h, 2),
    "three times": (lambda h: h + h + h, 0),
    "a gradient passed on": (lambda h: h + h.sin(), 2),
    "in Python": (lambda h: Both.apply(h) + h, 1),
    "in Python, twice": (lambda h: Both.apply(h) * Both.apply(h), 2 + 2),
    "a hook": (lambda h: hooked(h) + h, 1 + 2),
    "a shared weight": (shared_weight, 0),
}


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("use", USES)
def test_engine_sums_are_no_work(use: str, retain: bool) -> None:
    function, each = USES[use]
    x = torch.ones(N, N, requires_grad=True)
    output = function(x * 1)
    assert sums_in(output) > 0
    with FlopMode(Attribution()) as mode:
        output.backward(torch.ones(N, N), retain_graph=retain)
    macs = sum(mode.macs.values())
    assert sum(mode.flops.values()) - 2 * macs == (each + 1) * N * N, "and 1 for x * 1"


@pytest.mark.parametrize("create_graph", [False, True])
def test_finds_as_many_sums_as_the_graph_implies(create_graph: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    saw = grad_accumulation.GradAccumulation.record_op

    def spy(*arguments: Any) -> bool:
        found.append(saw(*arguments))
        return found[-1]

    monkeypatch.setitem(globals(), "__name__", "distprof.tests")  # distprof's own frames are skipped
    monkeypatch.setattr(grad_accumulation.GradAccumulation, "record_op", spy)
    x = torch.randn(N, N, requires_grad=True)
    model = nn.TransformerEncoderLayer(N, 2, N, dropout=0.0, batch_first=True)
    output = model(residual(x * 1)[None]).square().sum()
    with FlopMode(Attribution()):
        torch.autograd.grad(output, [x, *model.parameters()], create_graph=create_graph)
    assert sum(found) == sums_in(output) >= 5


def test_own_additions_of_nodes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine calls them as its own sums; if a graph has none of those, all additions count."""

    def flops() -> int:
        x, y = (torch.ones(N, N, requires_grad=True) for _ in range(2))
        output = torch.atan2(x, y) + sum(torch.var_mean(torch.ones(N, N, requires_grad=True), 1))
        assert sums_in(output) == 0
        with FlopMode(Attribution()) as mode:
            output.backward(torch.ones(N, N))
        return sum(mode.flops.values())

    counted = flops()
    monkeypatch.setattr(grad_accumulation, "_ADDS", ())
    assert counted == flops() > 2 * N * N


def test_no_node_is_kept_alive() -> None:
    x = torch.ones(N, N, requires_grad=True)
    attribution = Attribution()
    saved = torch.ones(N, N)
    with FlopMode(attribution):
        output = Keeps.apply(x, saved)
        attribution.backward_began(create_graph=False)
        output.sum().backward()
        attribution.backward_ended()
    graph = weakref.ref(output.grad_fn)
    del output
    assert graph() is None


class Keeps(torch.autograd.Function):
    """A node that supports weak references."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, saved: Tensor) -> Tensor:
        ctx.kept = saved
        return x * saved

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.kept, None
