"""Attribution: backward work goes to the module whose forward made the node, and recompute is counted separately.

Predictions are independent of the counter: a linear layer of m x k by k x n costs mkn MACs in forward, and in backward
mkn for its input, if it needs a gradient, and mkn for its weight, if it needs one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.recording import Seen, record
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from distprof.flops.attribution import BACKWARD, RECOMPUTE, Attribution
from distprof.flops.counter import FlopMode
from distprof.records import Counts, Error

WIDTH, ROWS = 8, 5
UP = ROWS * WIDTH * 4 * WIDTH  # MACs of a layer from WIDTH to 4 * WIDTH


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


Run = Callable[[nn.Module, Tensor], Tensor]


class Model(nn.Module):
    def __init__(self, run: Run = lambda block, x: block(x)) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.run(block, x)
        return x


def not_reentrant(block: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(block, x, use_reentrant=False)


def reentrant(block: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(block, x.requires_grad_(), use_reentrant=True)


def counted(folder: Path, model: nn.Module, step: Callable[[], object]) -> tuple[Seen, Counts]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)

    def job() -> None:
        step()
        optimizer.step()
        optimizer.zero_grad()

    seen = record(folder, job, count=True, timed=0)
    assert not seen.of(Error)
    return seen, seen.one(Counts)


def total(counts: Counts) -> int:
    """Returns all MACs of the step."""
    arrays = (counts.forward_macs, counts.backward_macs, counts.recompute_macs)
    return sum(int(array.sum()) for array in arrays) + sum(n for key, n in counts.outside.items() if "macs" in key)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("run", [lambda block, x: block(x), not_reentrant, reentrant])
def test_all_work_has_an_owner(tmp_path: Path, run: Run, frozen: bool) -> None:
    """The total equals that of FlopCounterMode, which has two flops a MAC."""
    model, x = Model(run), torch.randn(ROWS, WIDTH)
    if frozen:
        model.blocks[1].requires_grad_(False)

    def step() -> None:
        model(x.detach()).square().sum().backward()

    with FlopCounterMode(display=False) as theirs:
        step()
    assert total(counted(tmp_path, model, step)[1]) == theirs.get_total_flops() / 2


def test_backward_counts_requested_gradients(tmp_path: Path) -> None:
    model = Model()
    model.blocks[1].requires_grad_(False)  # gradients pass through it, but it gets none
    seen, counts = counted(tmp_path, model, lambda: model(torch.randn(ROWS, WIDTH)).sum().backward())
    names = [f"blocks.{number}.{layer}" for number in range(3) for layer in ("up", "down")]
    assert seen.by_name(counts.forward_macs) == dict.fromkeys(names, UP)
    assert seen.by_name(counts.backward_macs) == {name: UP if name.startswith("blocks.1") else 2 * UP for name in names}
    assert not counts.recompute_macs.any()


@pytest.mark.parametrize("run", [not_reentrant, reentrant])
def test_recompute(tmp_path: Path, run: Run) -> None:
    model = Model(run)
    seen, counts = counted(tmp_path, model, lambda: model(torch.randn(ROWS, WIDTH)).sum().backward())
    names = [f"blocks.{number}.{layer}" for number in range(3) for layer in ("up", "down")]
    assert seen.by_name(counts.forward_macs) == dict.fromkeys(names, UP)
    assert seen.by_name(counts.backward_macs) == dict.fromkeys(names, 2 * UP)
    again = names if run is reentrant else [name for name in names if "up" in name]  # the last op is not recomputed
    assert seen.by_name(counts.recompute_macs) == dict.fromkeys(again, UP)


def test_checkpointed_function_without_modules(tmp_path: Path) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(lambda y: (y @ self.weight).sin() @ self.weight, x, use_reentrant=False)

    model = Functional()
    _, counts = counted(tmp_path, model, lambda: model(torch.randn(ROWS, WIDTH)).sum().backward())
    once = ROWS * WIDTH * WIDTH
    work = (counts.forward_macs, counts.backward_macs, counts.recompute_macs)
    assert [int(array[0]) for array in work] == [2 * once, 3 * once, once]


def test_shared_layer_and_tied_weights(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH, bias=False)
            self.second = nn.Linear(WIDTH, WIDTH, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(self.first(x)))

    model = Tied()
    seen, counts = counted(tmp_path, model, lambda: model(torch.randn(ROWS, WIDTH)).sum().backward())
    once = ROWS * WIDTH * WIDTH
    assert seen.by_name(counts.forward_macs) == {"first": 2 * once, "second": once}
    assert seen.by_name(counts.backward_macs) == {"first": 3 * once, "second": 2 * once}


def test_matmul_in_the_loss(tmp_path: Path) -> None:
    model, target = nn.Linear(WIDTH, WIDTH), torch.randn(WIDTH, WIDTH)
    _, counts = counted(tmp_path, model, lambda: (model(torch.randn(ROWS, WIDTH)) @ target).sum().backward())
    once = ROWS * WIDTH * WIDTH
    assert (int(counts.forward_macs.sum()), int(counts.backward_macs.sum())) == (once, once)
    assert counts.outside["backward_macs"] == counts.outside["forward_macs"] == once


def test_gradient_penalty(tmp_path: Path) -> None:
    first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
    model = nn.Sequential(first, nn.Tanh(), second)

    def step(net: Callable[[Tensor], Tensor] = model) -> None:
        x = torch.ones(ROWS, WIDTH, requires_grad=True)
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        gradient.square().sum().backward()

    with FlopCounterMode(display=False) as theirs:  # its module tracker fails here, so no module is called
        step(lambda x: F.linear(F.linear(x, first.weight, first.bias).tanh(), second.weight, second.bias))
    _, counts = counted(tmp_path, model, step)
    assert total(counts) == theirs.get_total_flops() / 2
    assert not counts.recompute_macs.any()


def test_second_backward_by_module(tmp_path: Path) -> None:
    """Counted by hand.  The inner gradient takes a product of each layer, and each of the two has two operands;
    only of the last layer's one is the seed, which needs no gradient.  In forward nothing of the first layer needs one
    of ``x`` by the outer loss; of the weights, by the slope of tanh, it does.
    """
    first, second = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, 1)
    model = nn.Sequential(first, nn.Tanh(), second)

    def step() -> None:
        x = torch.ones(ROWS, WIDTH, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (gradient @ torch.ones(WIDTH, 2)).square().sum().backward()

    seen, counts = counted(tmp_path, model, step)
    one, two, loss = ROWS * WIDTH * 3 * WIDTH, ROWS * 3 * WIDTH, ROWS * WIDTH * 2
    assert seen.by_name(counts.forward_macs) == {"0": one, "2": two}
    # 0: inner; its two operands in the outer; x and the weight in the outer.  2: inner, and the weight in the outer.
    assert seen.by_name(counts.backward_macs) == {"0": (1 + 2 + 2) * one, "2": (1 + 1) * two}
    assert (counts.outside["forward_macs"], counts.outside["backward_macs"]) == (loss, loss)


def test_autograd_inside_forward(tmp_path: Path) -> None:
    """Forces as a model's output, where torch's own module tracker fails."""

    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            x = x.requires_grad_()
            (force,) = torch.autograd.grad(self.inner(x).tanh().sum(), x, create_graph=True)
            return force

    model = Energy()
    seen, counts = counted(tmp_path, model, lambda: model(torch.randn(ROWS, WIDTH)).square().sum().backward())
    once = ROWS * WIDTH * WIDTH
    assert seen.by_name(counts.forward_macs) == {"inner": once}
    # The force is one product.  Then that one's two operands, and the weight through tanh: x's own gradient is unused.
    assert seen.by_name(counts.backward_macs) == {"inner": (1 + 2 + 2) * once}
    assert "backward_macs" not in counts.outside


def test_nested_backward_on_an_engine_thread(tmp_path: Path) -> None:
    """As on a GPU, where nobody tells of it: what it goes through was made on that thread, not on the one that trains.

    The thread is one of the test's here, which runs the engine for itself; the mode comes to it as to the engine's.
    """
    attribution = Attribution()
    mode = FlopMode(attribution)
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(3)]

    def run(row: int, x: Tensor) -> Tensor:
        attribution.enter(row)
        y: Tensor = layers[row](x)
        attribution.leave()
        return y

    with mode:
        x = torch.ones(ROWS, WIDTH, requires_grad=True)
        hidden = run(0, x)
        loss = checkpoint(lambda y: run(2, run(1, y).sin()), hidden, use_reentrant=True).sum()
        attribution.backward_began(create_graph=False)

    def engine() -> None:
        for _ in range(5):  # this thread has made other nodes before
            x.sin()
        with mode:
            loss.backward()

    thread = threading.Thread(target=engine)
    thread.start()
    thread.join()
    attribution.backward_ended()
    once = ROWS * WIDTH * WIDTH
    assert {owner.row: macs for owner, macs in mode.macs.items() if owner.kind == BACKWARD} == dict.fromkeys(
        range(3), 2 * once
    )
    assert {owner.row: macs for owner, macs in mode.macs.items() if owner.kind == RECOMPUTE} == {1: once, 2: once}
