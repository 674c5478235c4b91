"""Tests of the optimizer's work, which is counted separately and completes the counted step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import Seen, record
from torch import Tensor, nn

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.records import Counts, Error

WIDTH = 8
SIZE = WIDTH * WIDTH + WIDTH  # parameters of the model
X = torch.ones(4, WIDTH)
Make = Callable[..., torch.optim.Optimizer]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    for _ in range(steps):
        nn.functional.mse_loss(model(X), X).backward()
        optimizer.step()


def counted(folder: Path, job: Callable[[], object], **settings: Any) -> tuple[Seen, Counts]:
    seen = record(folder, job, count=True, timed=0, **settings)
    assert not seen.of(Error)
    return seen, seen.one(Counts)


def total(counts: Counts) -> int:
    """Returns all flops of the step: in modules, outside of them, and of the optimizer."""
    arrays = (counts.forward_flops, counts.backward_flops, counts.recompute_flops)
    outside = sum(amount for key, amount in counts.outside.items() if key.endswith("_flops"))
    return sum(int(array.sum()) for array in arrays) + outside


@pytest.mark.parametrize(
    ("make", "each"),
    [
        (partial(torch.optim.SGD, foreach=False), 2),  # the rate, and the difference
        (partial(torch.optim.SGD, foreach=True), 2),
        (partial(torch.optim.SGD, foreach=True, momentum=0.9, dampening=0.1), 2 + 3),
        (partial(torch.optim.SGD, fused=True), 2),
        (partial(torch.optim.SGD, fused=True, momentum=0.9), 5),
        (partial(torch.optim.Adam, fused=True), 13),
        (partial(torch.optim.AdamW, fused=True), 15),
        (partial(torch.optim.Adagrad, fused=True), 7),
    ],
)
def test_an_element_costs_what_the_update_says(tmp_path: Path, make: Make, each: int) -> None:
    """Counts the second step: the first one only initialises momentum."""
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = make(model.parameters(), lr=0.01)
    _, counts = counted(tmp_path, lambda: train(model, optimizer, steps=2), warmup=1)
    counters = 0 if isinstance(optimizer, torch.optim.SGD) else 2  # a tensor of the parameter's own
    assert counts.outside["optimizer_flops"] == each * SIZE + counters
    assert not counts.uncounted


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adadelta", "Adamax", "ASGD"])
@pytest.mark.parametrize("foreach", [False, True])
def test_foreach_optimizer_counts_like_single_ops(tmp_path: Path, kind: str, foreach: bool) -> None:
    """Each op touches each element a few times; values for all elements may be tensors, too."""
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01, foreach=foreach)
    _, counts = counted(tmp_path, lambda: train(model, optimizer, steps=2), warmup=1)
    assert 1 <= counts.outside["optimizer_flops"] / SIZE <= 25
    assert not counts.uncounted


class Whole(nn.Module):
    """A model with its loss, so that nothing runs outside of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.body(x), x)


@pytest.mark.parametrize("foreach", [False, True])
def test_modules_outside_and_optimizer_are_the_whole_step(tmp_path: Path, foreach: bool) -> None:
    """The total equals that of a mode without modules that is always on."""
    model = Whole()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=foreach)

    def job() -> None:
        model(X).backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopMode(Attribution()) as flat:
        job()
    _, counts = counted(tmp_path, job)
    assert total(counts) == sum(flat.flops.values())


def test_what_a_closure_runs_is_its_modules(tmp_path: Path) -> None:
    """Lightning and LBFGS run forward and backward inside the optimizer's step."""
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def closure() -> Tensor:
        loss = nn.functional.mse_loss(model(X), X)
        loss.backward()
        return loss

    seen, counts = counted(tmp_path, lambda: [optimizer.step(closure) for _ in range(2)], warmup=1)
    assert seen.by_name(counts.forward_macs) == seen.by_name(counts.backward_macs) == {"": 4 * WIDTH * WIDTH}
    loss = 3 * X.numel()
    assert counts.outside == {
        "backward_flops": 2 * X.numel(),
        "forward_flops": loss,
        "optimizer_flops": 2 * SIZE,
    }


def test_a_step_that_raises_leaves_no_mode(tmp_path: Path) -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def closure() -> Tensor:
        raise KeyboardInterrupt

    def job() -> None:
        train(model, optimizer)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(closure)
        assert torch._C._len_torch_dispatch_stack() == 0
        train(model, optimizer)

    _, counts = counted(tmp_path, job, warmup=1)
    assert counts.outside["optimizer_flops"] == 2 * SIZE


def test_both_optimizers_of_an_iteration_are_counted(tmp_path: Path) -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizers = [torch.optim.SGD([parameter], lr=0.01) for parameter in model.parameters()]

    def job() -> None:
        for _ in range(4):
            nn.functional.mse_loss(model(X), X).backward()
            for optimizer in optimizers:
                optimizer.step()

    _, counts = counted(tmp_path, job, warmup=2)
    assert counts.outside["optimizer_flops"] == 2 * SIZE
