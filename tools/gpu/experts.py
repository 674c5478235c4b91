"""Tokens of experts, counted on the device and read a step later, against the script's own count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gpu.finding import Finding, equal
from gpu.training import WARMUP, train_recorded

_EXPERTS, _TOP_K, _WIDTH, _TOKENS = 16, 2, 64, 512


class _Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.top_k = _TOP_K
        self.gate = nn.Linear(_WIDTH, _EXPERTS, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = self.gate(x).softmax(-1).topk(_TOP_K, dim=-1)
        return weights, chosen


class _MoE(nn.Module):
    """Calls each expert with its tokens, and keeps what the router chose."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts = _EXPERTS
        self.router = _Router()
        self.experts = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(_EXPERTS))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x)
        self.seen.append(chosen.detach())
        output = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            output = output.index_add(0, token, expert(x[token]) * weights[token, place, None])
        return output.square().mean()


def experts(device: torch.device) -> list[Finding]:
    torch.manual_seed(0)
    model = _MoE().to(device)
    x = torch.randn(_TOKENS, _WIDTH, device=device)
    _, report = train_recorded(model, lambda: model(x))
    # One iteration is counted, the warm-up is not recorded: the report has the timed ones.
    chosen = torch.stack(model.seen[WARMUP + 1 :]).flatten()
    truth = tuple(torch.bincount(chosen, minlength=_EXPERTS).tolist())
    if len(report.experts) != 1:
        return [equal("MoE layers found", len(report.experts), 1)]
    layer = report.experts[0]
    return [
        equal("tokens that routers chose, by expert", layer.routed, truth),
        equal("tokens that experts processed, by expert", layer.tokens, truth),
    ]
