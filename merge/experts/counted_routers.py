"""What the counted step shows of routers: how much of what they choose is padding, their entropy and their z loss.

    padding share = choices of padding tokens / choices, over all ranks, without dropped ones
    entropy, z loss = means over the tokens of all ranks

Ranks of a tensor-parallel group may route the same tokens; all of them do, so these are as if each token counted once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.load.rank import RankData
from distprof.merge.report import CountedRouter
from distprof.records import ExpertRouting, LayerRouting, RouterFigures

#: What one rank has of a layer: its choices, and what else was seen.
_OfRank = tuple[LayerRouting | None, RouterFigures | None]


@computed_once
def counted_routers(analysis: Analysis) -> dict[int, CountedRouter]:
    """Returns what is known, by the layer's module of the union."""
    found: dict[int, list[_OfRank]] = {}
    for column, data in enumerate(analysis.ranks):
        window = analysis.windows.get(data.rank)
        if window is not None and window.counted_routing is not None:
            places = analysis.union.index(column)
            for number, of_rank in _by_layer(data, window.counted_routing):
                found.setdefault(int(places[data.layers[number].row]), []).append(of_rank)
    return {module: _counted_router(ranks) for module, ranks in found.items()}


def _by_layer(data: RankData, record: ExpertRouting) -> Iterator[tuple[int, _OfRank]]:
    choices = {one.layer: one for one in record.layers}
    figures = {one.layer: one for one in record.figures}
    for number in range(len(data.layers)):
        if number in choices or number in figures:
            yield number, (choices.get(number), figures.get(number))


def _counted_router(ranks: list[_OfRank]) -> CountedRouter:
    share: float | None = None
    shares: tuple[float | None, ...] = ()
    known = [(choices, one) for choices, one in ranks if choices is not None and one is not None and one.masked_tokens]
    if len(known) == len(ranks):
        padding: FloatArray = np.sum([one.padding for _, one in known], axis=0, dtype=np.float64)
        chosen: FloatArray = np.sum([_kept(choices) for choices, _ in known], axis=0)
        share = float(padding.sum() / chosen.sum()) if chosen.any() else None
        shares = tuple(part / of if of else None for part, of in zip(padding.tolist(), chosen.tolist(), strict=True))
    return CountedRouter(share, shares, _mean(ranks, "entropy"), _mean(ranks, "z_loss"))


def _mean(ranks: list[_OfRank], name: str) -> float | None:
    """Returns a sum of all ranks / their tokens; None where one of them lacks it, or has no finite one."""
    figures = [one for _, one in ranks if one is not None]
    sums = [getattr(one, name) for one in figures]
    if len(figures) < len(ranks) or not all(map(len, sums)):
        return None
    mean = float(sum(one[0] for one in sums) / sum(one.scored_tokens for one in figures))
    return mean if np.isfinite(mean) else None


def _kept(choices: LayerRouting) -> FloatArray:
    """Returns the choices by expert, without those that were dropped as far as this is known."""
    routed = choices.routed.astype(np.float64)
    return routed - choices.dropped if len(choices.dropped) else routed
