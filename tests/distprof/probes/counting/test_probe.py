"""Tests of the counting probe: each module's own work, compared with torch's counter and between runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import Seen, record
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from distprof.records import FORWARD, TRAINING, Counts, Step

X = torch.ones(4, 8)


def train(model: nn.Module, *inputs: Any, steps: int = 1, accumulate: int = 1) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        for _ in range(accumulate):
            loss = model(*inputs).square().sum()
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


def counted(folder: Path, job: Callable[[], object]) -> Seen:
    """Returns the counts of the first iteration."""
    return record(folder, job, count=True, timed=0)


def torchs_count(model: nn.Module, *inputs: Any) -> int:
    with FlopCounterMode(display=False) as mode:
        model(*inputs)
    return int(mode.get_total_flops())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1).bmm(v))


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3), nn.Flatten())
        self.head = nn.Linear(6 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), X),
        (Attention(), torch.ones(2, 5, 8)),
        (Conv(), torch.ones(2, 3, 8, 8)),
        (nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), torch.ones(2, 5, 8)),
    ],
    ids=["MLP", "attention", "convolutions", "encoder layer"],
)
def test_the_total_is_torchs(tmp_path: Path, model: nn.Module, x: Tensor) -> None:
    attention = 0
    if isinstance(model, nn.TransformerEncoderLayer):  # torch counts 0 for attention on CPU: two matmuls
        attention = 2 * 2 * (2 * 2 * 5 * 5 * 4)
    counts = counted(tmp_path, lambda: train(model, x)).one(Counts)
    assert 2 * counts.forward_macs.sum() == torchs_count(model, x) + attention > 0
    assert not counts.uncounted


def test_work_is_the_innermost_modules_own(tmp_path: Path) -> None:
    seen = counted(tmp_path, lambda: train(nn.Sequential(Attention(), nn.Linear(8, 4)), torch.ones(2, 5, 8)))
    rows = 2 * 5
    assert seen.macs() == {
        "0": 2 * (2 * 5 * 5 * 8),
        "0.qkv": rows * 8 * 24,
        "0.out": rows * 8 * 8,
        "1": rows * 8 * 4,
    }
    assert seen.by_name(seen.one(Counts).calls) == {"": 1, "0": 1, "0.qkv": 1, "0.out": 1, "1": 1}


def test_backward_is_no_forward_work(tmp_path: Path) -> None:
    model = nn.Linear(8, 16)
    assert counted(tmp_path, lambda: train(model, X)).macs() == {"": 4 * 8 * 16}


def test_micro_batches_add_up(tmp_path: Path) -> None:
    seen = counted(tmp_path, lambda: train(nn.Linear(8, 16), X, accumulate=3))
    counts = seen.one(Counts)
    assert (counts.mode, counts.iteration, counts.micro_batches, counts.samples) == (TRAINING, 0, 3, 12)
    assert seen.macs() == {"": 3 * 4 * 8 * 16}
    assert seen.by_name(counts.calls) == {"": 3}


def test_one_step_is_counted_and_never_timed(tmp_path: Path) -> None:
    seen = record(tmp_path, lambda: train(nn.Linear(8, 16), X, steps=6), warmup=2, count=True, timed=2)
    assert seen.one(Counts).iteration == 2
    assert [step.iteration for step in seen.of(Step)] == [3, 4]
    assert seen.macs() == {"": 4 * 8 * 16}


def test_evaluation_is_not_counted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU())

    def job() -> None:
        train(model, X)
        with torch.no_grad():
            model(X)
            model(X)
        train(model, X)

    seen = record(tmp_path, job, warmup=1, count=True, timed=0)
    assert seen.macs() == {"0": 4 * 8 * 16}
    assert seen.by_name(seen.one(Counts).calls) == {"": 1, "0": 1, "1": 1}
    assert seen.one(Counts).samples == 4


def test_a_frozen_part_inside_the_model_is_counted(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.encoder(x)
            return self.head(x)

    assert counted(tmp_path, lambda: train(Model(), X)).macs() == {"encoder": 4 * 8 * 16, "head": 4 * 16 * 2}


@pytest.mark.parametrize("reentrant", [True, False])
def test_recompute_is_no_forward_work(tmp_path: Path, reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            recomputed: Tensor = checkpoint(self.inner, x, use_reentrant=reentrant)
            return recomputed

    model = nn.Sequential(nn.Linear(8, 8), Checkpointed())
    seen = counted(tmp_path, lambda: train(model, X))
    assert seen.macs() == {"0": 4 * 8 * 8, "1.inner.0": 4 * 8 * 16, "1.inner.2": 4 * 16 * 8}
    assert max(seen.one(Counts).calls) == 1


def test_two_models_of_one_class_are_kept_apart(tmp_path: Path) -> None:
    a, b = nn.Sequential(nn.Linear(8, 16)), nn.Sequential(nn.Linear(16, 4))

    def job() -> None:
        optimizer = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.01)
        b(a(X)).sum().backward()
        optimizer.step()

    seen = counted(tmp_path, job)
    macs = seen.one(Counts).forward_macs
    assert seen.by_name(macs, root=0) == {"0": 4 * 8 * 16}
    assert seen.by_name(macs, root=1) == {"0": 4 * 16 * 4}


def test_inference_counts_one_forward(tmp_path: Path) -> None:
    model = nn.Linear(8, 16)

    def job() -> None:
        with torch.inference_mode():
            for _ in range(4):
                model(X)

    seen = record(tmp_path, job, warmup=1, count=True, timed=1)
    counts = seen.one(Counts)
    assert (counts.mode, counts.iteration, counts.micro_batches) == (FORWARD, 1, 1)
    assert seen.macs() == {"": 4 * 8 * 16}


def test_ops_without_a_formula_are_listed(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(torch.linalg.matrix_exp(self.linear(x)))

    uncounted = counted(tmp_path, lambda: train(Model(), torch.eye(8))).one(Counts).uncounted
    assert uncounted["aten.linalg_matrix_exp"] == 4, "in backward, too"
    assert "aten.addmm" not in uncounted
    assert list(uncounted) == sorted(uncounted)


def test_a_forward_that_raises_leaves_no_mode(tmp_path: Path) -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.broken = True

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(x)
            if self.broken:
                raise ValueError("theirs")
            return y

    model = Fails()

    def job() -> None:
        with pytest.raises(ValueError, match="theirs"):
            model(X)
        assert torch._C._len_torch_dispatch_stack() == 0
        model.broken = False
        train(model, X, steps=2)

    seen = record(tmp_path, job, warmup=1, count=True, timed=0)
    assert seen.macs() == {"linear": 4 * 8 * 8}


def test_losses_are_the_same_to_the_bit(tmp_path: Path) -> None:
    def job() -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(), nn.LayerNorm(16), nn.Linear(16, 2))
        return train(model, torch.randn(4, 8), steps=6)

    plain, recorded = job(), []
    record(tmp_path, lambda: recorded.extend(job()), warmup=1, count=True, timed=2)
    assert recorded == plain


@pytest.mark.slow
def test_compiled_code_stays_compiled(tmp_path: Path) -> None:
    def job(recompiles: list[int]) -> list[float]:
        torch.manual_seed(0)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model: Any = torch.compile(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), fullgraph=True)
        losses = train(model, torch.randn(4, 8), steps=6)
        recompiles.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return losses

    graphs: list[int] = []
    plain, recorded = job(graphs), []
    seen = record(tmp_path, lambda: recorded.extend(job(graphs)), warmup=2, count=True, timed=2)
    assert recorded == plain
    assert graphs == [1, 1]
    assert seen.one(Counts).forward_macs.sum() == 4 * 8 * 16 + 4 * 16 * 2
    (work,) = seen.one(Counts).device_work
    assert work.model_macs == work.executed_macs == 2 * 4 * 8 * 16 + 3 * 4 * 16 * 2
    assert len(seen.of(Step)) == 2
    torch._dynamo.reset()
