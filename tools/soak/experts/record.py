"""Records jobs of sleeping experts: ``python -m soak.experts.record FOLDER KIND-NUMBER...``.

Four ranks of one expert-parallel group have a layer of 16 experts, which sleep for each token.  KIND is ``even``, or
``hot`` (an expert gets half of all tokens), ``slow`` (the experts of a rank sleep twice as long) or ``both``; with
``-forced`` at the end of the name, all experts get as many tokens.  The rank follows from NUMBER.
"""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")

import torch
import torch.distributed as dist
from torch import Tensor, nn

import distprof
from soak.forked_jobs.ranks import RecordedJob
from soak.skew.experts import EXPERTS, MixtureOfExperts

RANKS, WARMUP, TIMED = 4, 3, 8
_WIDTH, _TOKENS = 16, 64
_TOKEN_S, _SLOWER = 1.5e-3, 2.0


class SleepingExpert(nn.Module):
    def __init__(self, token_s: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(_WIDTH))
        self.token_s = token_s

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.token_s * len(x))
        out: Tensor = x @ self.weight
        return out


class PlannedExperts(MixtureOfExperts):
    """Experts get tokens in turn; ``hot``: this one gets every second token."""

    def __init__(self, hot: int | None, token_s: float) -> None:
        distributed: Any = dist
        super().__init__(_WIDTH, distributed.group.WORLD, None, 0)
        self.experts = nn.ModuleList(SleepingExpert(token_s) for _ in self.experts)
        self.hot = hot

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(len(x))
        chosen = places % EXPERTS if self.hot is None else torch.where(places % 2 == 0, self.hot, places % EXPERTS)
        weights = self.gate(x).softmax(-1).gather(1, chosen[:, None])
        order = chosen.argsort(stable=True)
        there = self._run(x[order], torch.bincount(chosen, minlength=EXPERTS))
        outputs: Tensor = torch.empty_like(x).index_copy(0, order, there) * weights
        return outputs


def build(name: str, rank: int) -> nn.Module:
    """Returns the model of a rank."""
    kind, number, *forced = name.split("-")
    faulty = int(number) % RANKS
    hot = faulty * (EXPERTS // RANKS) if kind in ("hot", "both") and not forced else None
    slower = _SLOWER if kind in ("slow", "both") and rank == faulty else 1.0
    distprof.set_topology(ep=RANKS)
    return nn.Sequential(nn.Linear(_WIDTH, _WIDTH), PlannedExperts(hot, _TOKEN_S * slower))


if __name__ == "__main__":
    RecordedJob(RANKS, WARMUP, TIMED, (_TOKENS, _WIDTH), build).main()
