"""Whether ep ranks differ in time because of their tokens, of their devices, or both.

Tokens against time, one point for each ep rank and step:

    time of rank r = slowness_r * typical * (f + (1 - f) * tokens / mean tokens)

``f`` is the share of the typical time that does not depend on tokens.  Most ranks have a slowness of 1.  For each of
some f, a rank is slow where its median exceeds that of the others by more than 10 % and by more than chance explains.
The chosen f has the smallest

    N ln(variance of what is left) + (4 * number of slow ranks + (1 if f > 0)) ln N           (N points)

This is Schwarz's criterion (BIC, 1978), but a slow rank has to explain four times as much: no device is called slow if
tokens explain the times nearly as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.report import ONLY_DEVICE, ONLY_TOKENS, TOKENS_AND_DEVICE, TokensOrDevice
from distprof.merge.stats import middle
from distprof.plain import dataclass

_FEWEST_STEPS = 3
#: A rank is slow, and tokens are unequal, from this share of the typical time on.
_WORTH = 0.1
_SHARES = np.linspace(0, 1, 41)
_PRICE_OF_A_DEVICE = 4
_SURE = 4.0  # standard errors
_CAUSES = {
    (True, True): TOKENS_AND_DEVICE,
    (True, False): ONLY_TOKENS,
    (False, True): ONLY_DEVICE,
    (False, False): "",
}
_LEAST_NOISE = 1e-3  # relative: clocks and medians are not more exact


@dataclass(frozen=True, eq=False)
class _Fit:
    fixed: float
    slowness: FloatArray  # by rank
    typical: float  # time of a rank of slowness 1 at the mean of the tokens


def tokens_or_device(times: FloatArray, tokens: FloatArray) -> TokensOrDevice | None:
    """Returns what makes ep ranks differ, from (ranks, steps) times in ns and tokens.

    None with fewer than 2 ranks or 3 steps, and where a value is not known.
    """
    ranks, steps = times.shape
    known = bool(np.isfinite(times).all() and np.isfinite(tokens).all())
    if ranks < 2 or steps < _FEWEST_STEPS or not known or (times <= 0).any() or not tokens.any():
        return None
    relative = tokens / tokens.mean()
    fit = _best_fit(np.log(times), relative)
    load = fit.fixed + (1 - fit.fixed) * relative
    more = fit.slowness[:, None] * fit.typical * (load - load.mean(axis=0))
    saved = float(middle(times.max(axis=0) - (times - more).max(axis=0)))
    unequal = float(load.max(axis=0).mean()) - 1 >= _WORTH
    return TokensOrDevice(
        cause=_CAUSES[unequal, bool((fit.slowness > 1).any())],
        fixed_share=fit.fixed,
        typical_ns=fit.typical,
        slowness=tuple(fit.slowness.tolist()),
        saved_by_equal_tokens_ns=max(0.0, saved),
    )


def saved_in_micro_batches(
    times: FloatArray, tokens: FloatArray, fit: TokensOrDevice, by_step: Sequence[Sequence[FloatArray]]
) -> float | None:
    """Returns what equal tokens in each micro-batch save of an iteration, in ns; ``by_step`` has for each step the
    tokens (ranks, micro-batches) of each replica.

    Each micro-batch waits for its slowest rank.  The time of a rank in a step is divided among its micro-batches as the
    fit says.  None where the tokens of whole steps are so equal that they do not show what depends on them.
    """
    relative = tokens / tokens.mean()
    if relative.max() - relative.min() < _WORTH:
        return None
    saved = []
    for own, replicas in zip(times.T, by_step, strict=True):
        costs = []
        for loads in replicas:
            each = loads * len(replicas) / tokens.mean()
            work = fit.fixed_share / loads.shape[1] + (1 - fit.fixed_share) * each
            total = work.sum(axis=1, keepdims=True)
            now = own[:, None] * work / np.where(total > 0, total, 1)  # a rank without tokens may take no time
            more = np.array(fit.slowness)[:, None] * fit.typical_ns * (work - work.mean(axis=0))
            costs.append(now.max(axis=0).sum() - (now - more).max(axis=0).sum())
        saved.append(sum(costs) / len(costs))
    return max(0.0, float(middle(saved)))


def _best_fit(logarithms: FloatArray, relative: FloatArray) -> _Fit:
    """Returns the fit for the share f that Schwarz's criterion prefers, the smallest of equal ones."""
    # A rank without tokens takes some time, so that f is not 0.
    shares = _SHARES[(_SHARES > 0) | bool((relative > 0).all())]
    left = logarithms - np.log(shares[:, None, None] + (1 - shares[:, None, None]) * relative)  # (shares, ranks, steps)
    own = middle(left, axis=2)
    typical = np.sort(own, axis=1)[:, (own.shape[1] - 1) // 2]
    noise = np.maximum(_LEAST_NOISE, np.std(left - own[:, :, None], axis=(1, 2)))
    apart = own - typical[:, None]
    slow = apart > np.maximum(np.log1p(_WORTH), _SURE * noise / np.sqrt(left.shape[2]))[:, None]
    rest = left - np.where(slow, own, typical[:, None])[:, :, None]
    variance = np.maximum(_LEAST_NOISE**2, np.mean(rest**2, axis=(1, 2)))
    parameters = _PRICE_OF_A_DEVICE * np.count_nonzero(slow, axis=1) + (shares > 0)
    score = logarithms.size * np.log(variance) + parameters * np.log(logarithms.size)
    best = int(score.argmin())
    slowness = np.where(slow[best], np.exp(apart[best]), 1.0)
    return _Fit(float(shares[best]), slowness, float(np.exp(typical[best])))
