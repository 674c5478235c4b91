"""Tests of the tokens of experts, from a model's forward to the records."""

from __future__ import annotations

from pathlib import Path

import torch
from support.loops import X, sgd, step, training
from support.recording import record
from torch import Tensor, nn

from distprof.records import ExpertLayers, ExpertLoad, Step


class MoE(nn.Module):
    """Sends token i to expert ``route[i]``; experts without tokens are not called."""

    def __init__(self, experts: int, route: list[int]) -> None:
        super().__init__()
        self.num_experts = experts
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(experts))
        self.route = torch.tensor(route)

    def forward(self, x: Tensor) -> Tensor:
        output = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            chosen = self.route == number
            if chosen.any():
                output[chosen] = expert(x[chosen])
        return output


def test_tokens_of_experts(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), MoE(4, [1, 1, 3, 1]), MoE(2, [0, 0, 0, 1]))

    def job() -> None:
        optimizer = sgd(model)
        for _ in range(4):
            for _ in range(2):
                model(X).sum().backward()
            optimizer.step()
            with torch.no_grad():
                model(X)

    found = record(tmp_path, job, warmup=1, count=True, timed=2)
    layers = found.one(ExpertLayers).layers
    assert [(layer.name, layer.num_experts, layer.local_experts) for layer in layers] == [
        ("1", 4, (0, 1, 2, 3)),
        ("2", 2, (0, 1)),
    ]
    loads = found.of(ExpertLoad)
    assert [load.iteration for load in loads] == [timed.iteration for timed in found.of(Step)]
    assert all(load.tokens.tolist() == [0, 6, 0, 2, 6, 2] for load in loads)


def test_tokens_in_batches_of_sequences_and_by_keyword(tmp_path: Path) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(Named() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.experts[0](hidden=x) + self.experts[1](x[:, :2]).sum()

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, hidden: Tensor) -> Tensor:
            return self.linear(hidden)

    model = nn.Sequential(Layer())

    def job() -> None:
        optimizer = sgd(model)
        step(model, optimizer, torch.ones(3, 5, 8))

    assert record(tmp_path, job).one(ExpertLoad).tokens.tolist() == [15, 6]


def test_recomputed_tokens_count_once(tmp_path: Path) -> None:
    moe = MoE(2, [0, 0, 0, 1])

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.moe = nn.Linear(8, 8), moe

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.utils.checkpoint.checkpoint(self.moe, self.before(x), use_reentrant=False)
            return y

    assert record(tmp_path, training(1, Checkpointed())).one(ExpertLoad).tokens.tolist() == [3, 1]
