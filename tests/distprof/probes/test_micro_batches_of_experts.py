"""Micro-batches of one step that are hot in different experts: each is recorded, beside their sum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.loops import X, sgd
from support.recording import Seen, record
from torch import Tensor, nn

from distprof.probes import expert_records
from distprof.records import ExpertLoad, ExpertRouting, LayerCalls

#: The choices of four tokens in each of three micro-batches: expert 0 is hot, then 2; then all have as many.
CHOICES = [[0, 0, 0, 1], [2, 2, 2, 3], [0, 1, 2, 3]]


class Router(nn.Module):
    """Sends the tokens of each call to other experts."""

    def __init__(self) -> None:
        super().__init__()
        self.top_k, self.calls = 1, 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor(CHOICES[self.calls % len(CHOICES)])[:, None]
        self.calls += 1
        return torch.ones(chosen.shape), chosen


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_experts, self.router = 4, Router()
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        _, chosen = self.router(x)
        output = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).any(1).nonzero()[:, 0]
            if len(rows):
                output = output.index_add(0, rows, expert(x[rows]))
        return output


class ByIds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 8, 8))

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        y: Tensor = torch.einsum("td,tkde->te", x, self.weight[chosen])
        return y


class Handed(nn.Module):
    """Its experts are called with the ids of all tokens' experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = Router(), ByIds()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.experts(x, self.router(x)[1])
        return y


class ByCounts(ByIds):
    def forward(self, x: Tensor, num_tokens_per_expert: Tensor) -> Tensor:
        parts = x.split(num_tokens_per_expert.tolist())
        return torch.cat([part @ one for part, one in zip(parts, self.weight, strict=True)])


class Counted(nn.Module):
    """Its experts are called with the number of tokens of each."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = Router(), ByCounts()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.experts(x, torch.bincount(self.router(x)[1].flatten(), minlength=4))
        return y


def accumulating(layer: nn.Module, micro_batches: int) -> Callable[[], None]:
    model = nn.Sequential(nn.Linear(8, 8), layer)

    def job() -> None:
        optimizer = sgd(model)
        for _ in range(micro_batches):
            model(X).sum().backward()
        optimizer.step()

    return job


def only(seen: Seen) -> LayerCalls:
    (calls,) = seen.one(ExpertLoad).calls
    return calls


@pytest.mark.parametrize("layer", [Listed, Counted])
def test_what_experts_process_in_each_micro_batch(tmp_path: Path, layer: Callable[[], nn.Module]) -> None:
    seen = record(tmp_path, accumulating(layer(), 3))
    assert seen.one(ExpertLoad).tokens.tolist() == [4, 2, 4, 2]
    calls = only(seen)
    assert calls.layer == 0
    assert [calls.tokens.tolist(), calls.largest.tolist(), calls.hottest.tolist()] == [[4, 4, 4], [3, 3, 1], [0, 2, 0]]


def test_what_routers_keep_in_each_micro_batch(tmp_path: Path) -> None:
    seen = record(tmp_path, accumulating(Handed(), 2))
    (layer,) = seen.one(ExpertRouting).layers
    assert layer.routed.tolist() == [3, 1, 3, 1]
    assert layer.kept_by_call.tolist() == [3, 1, 0, 0, 0, 0, 3, 1]


@pytest.mark.parametrize("layer", [Listed, Handed, Counted])
def test_a_single_micro_batch_is_its_sum(tmp_path: Path, layer: Callable[[], nn.Module]) -> None:
    seen = record(tmp_path, accumulating(layer(), 1))
    assert [load.calls for load in seen.of(ExpertLoad)] in ([], [()])
    assert [one.kept_by_call.tolist() for one in seen.one(ExpertRouting).layers] == [[]]


@pytest.mark.parametrize("layer", [Listed, Handed, Counted])
def test_thousands_of_calls_are_summed_alone(
    tmp_path: Path, layer: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generation calls a layer for each token: what is kept of a step is bounded."""
    monkeypatch.setattr(expert_records, "_MOST_CALLS", 2)
    seen = record(tmp_path, accumulating(layer(), 6))
    assert [load.tokens.tolist() for load in seen.of(ExpertLoad)] in ([], [[8, 4, 8, 4]])
    assert [load.calls for load in seen.of(ExpertLoad)] in ([], [()])
    (routed,) = seen.one(ExpertRouting).layers
    assert (routed.routed.tolist(), routed.kept_by_call.tolist()) == ([8, 4, 8, 4], [])


def test_layers_of_which_too_much_would_be_recorded_have_sums_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expert_records, "_MOST_NUMBERS", 11)
    (layer,) = record(tmp_path, accumulating(Handed(), 3)).one(ExpertRouting).layers
    assert (layer.routed.tolist(), layer.kept_by_call.tolist()) == ([4, 2, 4, 2], [])
