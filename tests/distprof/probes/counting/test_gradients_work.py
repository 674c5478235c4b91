"""Work on gradients after the last backward belongs to the update, in grad mode and without."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.recording import record
from support.scripts import NewWorkplace
from torch import Tensor, nn

from distprof.clock import SystemClock
from distprof.records import Counts

CASES = Path(__file__).parents[3] / "cases"
WIDTH, ROWS = 8, 4
PARAMETERS = WIDTH * WIDTH
LOSS = 2 * ROWS * WIDTH  # the square and the mean


def counted(folder: Path, step: Callable[[nn.Linear, torch.optim.Optimizer], object]) -> Counts:
    """Returns the counts of one of several equal steps."""
    net = nn.Linear(WIDTH, WIDTH, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def job() -> None:
        for _ in range(3):
            step(net, optimizer)
            optimizer.zero_grad()

    return record(folder, job, warmup=1, count=True, timed=1).of(Counts)[-1]


def loss(net: nn.Linear) -> Tensor:
    return net(torch.ones(ROWS, WIDTH)).square().mean()


def gradient(net: nn.Linear) -> Tensor:
    assert net.weight.grad is not None
    return net.weight.grad


def test_clipping_by_hand(tmp_path: Path) -> None:
    """Compared with the script's own arithmetic, for 1,000,000 parameters and 4 rows of 1,000."""
    job = CASES / "clip_with_grad.py"
    found = record(tmp_path, lambda: runpy.run_path(str(job)), clock=SystemClock(), warmup=2, count=True, timed=1)
    counts, plain = found.one(Counts), counted(tmp_path / "plain", lambda net, optimizer: update(net, optimizer, None))
    assert counts.forward_flops.tolist() == [2 * 4 * 1_000_000]
    assert counts.outside["forward_flops"] == 2 * 4 * 1_000
    of_sgd = plain.outside["optimizer_flops"] // PARAMETERS * 1_000_000
    by_hand = 1_000_000 + 3_000_000  # averaging; the norm's square and sum, and the product
    assert counts.outside["optimizer_flops"] == pytest.approx(of_sgd + by_hand, abs=5)


def update(net: nn.Linear, optimizer: torch.optim.Optimizer, scale: float | None) -> None:
    loss(net).backward()
    if scale is not None:
        gradient(net).mul_(scale)
    optimizer.step()


def test_work_between_micro_batches_is_forward(tmp_path: Path) -> None:
    """Work between two forwards may be on the next batch, so it counts as forward."""

    def step(net: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        loss(net).backward()
        torch.ones(ROWS, WIDTH).mul_(3.0)  # the next batch
        update(net, optimizer, 0.5)

    plain = counted(tmp_path / "plain", lambda net, optimizer: update(net, optimizer, None))
    found = counted(tmp_path / "found", step)
    assert found.outside["forward_flops"] == 2 * LOSS + ROWS * WIDTH
    assert found.outside["optimizer_flops"] == plain.outside["optimizer_flops"] + PARAMETERS


def test_matrix_product_of_gradients(tmp_path: Path) -> None:
    def step(net: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        loss(net).backward()
        net.weight.grad = gradient(net) @ gradient(net)
        optimizer.step()

    found = counted(tmp_path, step)
    of_model = 2 * ROWS * WIDTH * WIDTH  # forward and the weight's gradient: the input needs none
    assert found.outside["optimizer_macs"] == WIDTH**3
    (work,) = found.device_work
    assert (work.model_macs, work.executed_macs) == (of_model, of_model + WIDTH**3)


def test_work_that_needs_a_gradient_is_forward(tmp_path: Path) -> None:
    """A penalty on the weights that has its own backward."""

    def step(net: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        loss(net).backward()
        net.weight.square().sum().backward()
        optimizer.step()

    plain = counted(tmp_path / "plain", lambda net, optimizer: update(net, optimizer, None))
    found = counted(tmp_path / "found", step)
    assert found.outside["forward_flops"] == LOSS + 2 * PARAMETERS
    assert found.outside["optimizer_flops"] == plain.outside["optimizer_flops"]


@pytest.mark.slow
@pytest.mark.stack("deepspeed")
@pytest.mark.parametrize(("accumulated", "clip"), [(1, "0"), (4, "1.0")])
def test_deepspeed_work_on_gradients(new_workplace: NewWorkplace, accumulated: int, clip: str) -> None:
    """Forward has the products of 4 rows, the square, the mean and the loss's scaling; the rest is the update's."""
    place = new_workplace().forking()
    ended = place.start_run("--nproc", 1, CASES / "ds_outside.py", accumulated, clip, timed=1).wait(900)
    assert ended.code == 0, ended.err  # the first time, DeepSpeed compiles an op, which takes minutes
    (counts,) = (record for shard in place.shards() for record in shard.records if isinstance(record, Counts))
    assert counts.forward_flops.sum() == accumulated * 2 * 4 * 1_000_000
    assert counts.outside["forward_flops"] == accumulated * (2 * 4 * 1_000 + 1)
