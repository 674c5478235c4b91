"""A layer of experts that are divided over an expert-parallel group: tokens go to them and back by all-to-all."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from soak.skew.networks import FeedForward

EXPERTS = 16
_HOT_BIAS = 1.5


class AllToAll(torch.autograd.Function):
    """Sends rows to the ranks of a group; the gradient goes back the same way.  A slow link delays both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int], layer: MixtureOfExperts) -> Tensor:
        ctx.exchange = sent, received, layer
        return _exchange(x, sent, received, layer)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        sent, received, layer = ctx.exchange
        return _exchange(gradients[0], received, sent, layer), None, None, None


def _exchange(x: Tensor, sent: list[int], received: list[int], layer: MixtureOfExperts) -> Tensor:
    y = x.new_empty(sum(received), x.shape[1])
    dist.all_to_all_single(y, x.contiguous(), received, sent, group=layer.group)
    time.sleep(layer.link_ms / 1e3)
    return y


class MixtureOfExperts(nn.Module):
    """Each token goes to one expert.  ``hot``: the expert that the router prefers; ``link_ms``: an exchange's delay."""

    def __init__(self, width: int, group: dist.ProcessGroup, hot: int | None, link_ms: float) -> None:
        super().__init__()
        self.group, self.link_ms = group, link_ms
        self.ranks = dist.get_world_size(group)
        self.gate = nn.Linear(width, EXPERTS)
        self.experts = nn.ModuleList(FeedForward(width, 4 * width) for _ in range(EXPERTS // self.ranks))
        self.bias = torch.zeros(EXPERTS)
        if hot is not None:
            self.bias[hot] = _HOT_BIAS

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        weights, chosen = (self.gate(rows) + self.bias).softmax(-1).max(-1)
        order = chosen.argsort(stable=True)
        there = self._run(rows[order], torch.bincount(chosen, minlength=EXPERTS))
        out = torch.empty_like(rows).index_copy(0, order, there * weights[order, None])
        return out.view_as(x)

    def _run(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Runs rows that are sorted by expert, ``counts`` for each expert, wherever their experts are."""
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts, group=self.group)
        by_source = arriving.view(self.ranks, -1)
        sent, received = counts.view(self.ranks, -1).sum(1).tolist(), by_source.sum(1).tolist()
        here = AllToAll.apply(rows, sent, received, self)
        back = self._run_own(here, by_source)
        result: Tensor = AllToAll.apply(back, received, sent, self)
        return result

    def _run_own(self, rows: Tensor, by_source: Tensor) -> Tensor:
        """Runs rows that are sorted by source, then by expert."""
        own = torch.arange(len(self.experts))
        ids = torch.cat([torch.repeat_interleave(own, counts) for counts in by_source])
        order = ids.argsort(stable=True)
        pieces = rows[order].split(torch.bincount(ids, minlength=len(own)).tolist())
        done = torch.cat([expert(piece) for expert, piece in zip(self.experts, pieces, strict=True)])
        return torch.empty_like(done).index_copy(0, order, done)
