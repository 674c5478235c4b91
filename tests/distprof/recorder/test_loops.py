"""Tests of common training loops: each module's work in the counted iteration, compared with hand computation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.recording import Seen, record
from torch import Tensor, nn

from distprof.records import Counts, Error

WIDTH, ROWS = 8, 4
ONE = ROWS * WIDTH * WIDTH  # MACs of a layer
X = torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).tanh()


def counted(folder: Path, job: Callable[[], object]) -> tuple[Seen, Counts]:
    """Records the loop; iteration 2 is counted."""
    seen = record(folder, job, warmup=2, count=True, timed=1)
    assert not seen.of(Error)
    counts = seen.one(Counts)
    assert counts.iteration == 2
    return seen, counts


def by_root(seen: Seen, counts: Counts) -> list[tuple[int, int]]:
    """Returns (forward, backward) MACs of each model, in the order of first calls."""
    roots = range(1 + max(row.root for row in seen.rows))
    return [
        tuple(sum(seen.by_name(macs, root).values()) for macs in (counts.forward_macs, counts.backward_macs))  # type: ignore[misc]
        for root in roots
    ]


def test_a_gan(tmp_path: Path) -> None:
    """Two models and two optimizers; the critic gets real data, fake data, and fake data again."""
    generator, critic = Net(), Net()
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01) for net in (critic, generator)]

    def job() -> None:
        for _ in range(6):
            fake = generator(X)
            (critic(X).mean() - critic(fake.detach()).mean()).backward()
            optimizers[0].step()
            for optimizer in optimizers:
                optimizer.zero_grad()
            critic(fake).mean().backward()
            optimizers[1].step()

    seen, counts = counted(tmp_path, job)
    roots = by_root(seen, counts)
    assert counts.micro_batches == 1
    assert sorted(roots) == [(ONE, ONE), (3 * ONE, (1 + 1 + 2) * ONE)], "X needs no gradient, the fake of the last does"


def test_a_gradient_penalty(tmp_path: Path) -> None:
    """Double backward: the inner gradient by x, then its gradient by both operands."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def job() -> None:
        for _ in range(4):
            x = X.clone().requires_grad_()
            (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
            (slope.norm(dim=1) - 1).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    seen, counts = counted(tmp_path, job)
    # The inner gradient is one product; the layer's own backward, by its weight and by x, two; that of the inner
    # gradient, whose nodes the layer's backward made, two more.
    assert by_root(seen, counts)[0] == (ONE, 5 * ONE)
    assert "backward_macs" not in counts.outside
    assert not counts.recompute_macs.any()


def test_an_average_kept_by_deepcopy(tmp_path: Path) -> None:
    """A copy that is made near the counted step and runs without gradient is not a training model."""
    net = Net()
    average = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def job() -> None:
        nonlocal average
        for step in range(5):
            net(X).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step in (1, 2):
                average = copy.deepcopy(net)
            with torch.no_grad():
                for kept, new in zip(average.parameters(), net.parameters(), strict=True):
                    kept.lerp_(new, 0.1)
                average(X)

    _, counts = counted(tmp_path, job)
    assert sum(counts.forward_macs) == ONE
    assert sum(counts.backward_macs) == ONE
    assert counts.micro_batches == 1


@pytest.mark.parametrize("accumulate", [1, 3])
def test_autocast_with_a_scaler_and_accumulation(tmp_path: Path, accumulate: int) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")

    def job() -> None:
        for _ in range(4):
            for _ in range(accumulate):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = net(X).float().square().mean()
                scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    seen, counts = counted(tmp_path, job)
    assert seen.by_name(counts.forward_macs) == seen.by_name(counts.backward_macs) == {"inner": accumulate * ONE}
    assert (counts.micro_batches, counts.samples) == (accumulate, accumulate * ROWS)
    assert counts.outside["optimizer_flops"] == 3 * (WIDTH * WIDTH + WIDTH) + 1, (
        "unscaling by 1 / scale, and the update (2)"
    )
