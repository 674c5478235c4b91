"""Mixtures of experts for the cost of recording their tokens: experts stacked in one module, or in a list."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.shapes import EXPERTS, MOE_TOKENS, MOE_WIDTH, TOP_K


class Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.top_k, self.num_experts = TOP_K, EXPERTS
        self.weight = nn.Parameter(torch.randn(EXPERTS, MOE_WIDTH) * 0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = F.linear(x, self.weight)
        scores, ids = logits.softmax(-1).topk(TOP_K)
        return logits, scores, ids


class StackedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_experts = EXPERTS
        self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, 2 * MOE_WIDTH, MOE_WIDTH) * 0.02)
        self.down_proj = nn.Parameter(torch.randn(EXPERTS, MOE_WIDTH, MOE_WIDTH) * 0.02)

    def forward(self, x: Tensor, ids: Tensor, scores: Tensor) -> Tensor:
        gate_up, down = self.gate_up_proj.unbind(), self.down_proj.unbind()

        def run(expert: int, rows: Tensor) -> Tensor:
            gate, up = F.linear(rows, gate_up[expert]).chunk(2, -1)
            return F.linear(F.silu(gate) * up, down[expert])

        return _dispatched(x, ids, scores, run)


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Linear(MOE_WIDTH, 2 * MOE_WIDTH, bias=False)
        self.down = nn.Linear(MOE_WIDTH, MOE_WIDTH, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        gate, up = self.gate_up(rows).chunk(2, -1)
        y: Tensor = self.down(F.silu(gate) * up)
        return y


class MixtureOfExperts(nn.Module):
    def __init__(self, *, stacked: bool) -> None:
        super().__init__()
        self.gate = Router()
        self.experts: nn.Module = StackedExperts() if stacked else nn.ModuleList(Expert() for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        _, scores, ids = self.gate(x)
        if isinstance(self.experts, nn.ModuleList):
            experts = self.experts
            return x + _dispatched(x, ids, scores, lambda expert, rows: experts[expert](rows))
        y: Tensor = x + self.experts(x, ids, scores)
        return y


def _dispatched(x: Tensor, ids: Tensor, scores: Tensor, run: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Runs each expert on its tokens, those of an expert together."""
    order = ids.reshape(-1).argsort()
    token = order // TOP_K
    pieces = x[token].split(torch.bincount(ids.reshape(-1), minlength=EXPERTS).tolist())
    found = torch.cat([run(expert, rows) for expert, rows in enumerate(pieces)])
    return torch.zeros_like(x).index_add(0, token, found * scores.reshape(-1)[order, None])


class MoeTraining:
    """The training of ``layers`` mixtures of experts on one batch, on one thread."""

    def __init__(self, layers: int, *, stacked: bool) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model = nn.Sequential(*(MixtureOfExperts(stacked=stacked) for _ in range(layers)))
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self._x = torch.randn(MOE_TOKENS, MOE_WIDTH)

    def step(self) -> None:
        self._optimizer.zero_grad()
        self.model(self._x).square().mean().backward()
        self._optimizer.step()
