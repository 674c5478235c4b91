"""The entropy and the z loss of a router's scores of all experts, in the counted step.

    shares of a token = softmax(logits), or its probabilities / their sum
    entropy           = -sum(shares * ln(shares)) / ln(experts)
    z loss            = logsumexp(logits) ** 2                       Zoph et al. 2022, ST-MoE, arXiv 2202.08906

Scores below 0 are logits.  Scores of 0 to 1 are probabilities, unless all but the chosen ones are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import log
from typing import Any

import torch

from distprof.frameworks.routing_readers import plain_values


@dataclass(frozen=True)
class ScoreSums:
    """Sums over tokens.  ``z_loss`` is None where no logits are seen."""

    tokens: int
    entropy: float
    z_loss: float | None


def scores_in(output: Any, num_experts: int) -> Iterator[torch.Tensor]:
    """Yields the tensors of a module's output that may be scores of all experts, [..., experts]."""
    for value in plain_values(output):
        is_of_all = isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[-1] == num_experts
        if is_of_all and value.is_floating_point() and value.numel():
            yield value.detach()


def score_sums(every: Iterable[torch.Tensor], num_experts: int, top_k: int) -> ScoreSums | None:
    """Returns the sums of the first logits among some scores, else of the first probabilities; None without either.

    Waits for the device.
    """
    seen = [one for scores in every if (one := _sums(scores.reshape(-1, num_experts).float(), top_k)) is not None]
    with_logits = [one for one in seen if one.z_loss is not None]
    return next(iter(with_logits or seen), None)


def _sums(scores: torch.Tensor, top_k: int) -> ScoreSums | None:
    tokens, experts = scores.shape
    if experts < 2 or scores.isnan().any():
        return None
    if scores.min() < 0:
        z_loss = float(scores.logsumexp(-1).square().double().sum())
        return ScoreSums(tokens, _entropy(scores.softmax(-1)), z_loss)
    totals, zeros = scores.sum(-1, keepdim=True), int((scores == 0).sum(-1).min())
    only_chosen = zeros >= experts - top_k > 0 if top_k else zeros > 0
    if only_chosen or scores.max() > 1.001 or not totals.min():
        return None
    return ScoreSums(tokens, _entropy(scores / totals), None)


def _entropy(shares: torch.Tensor) -> float:
    return float(torch.special.entr(shares).double().sum()) / log(shares.shape[-1])
