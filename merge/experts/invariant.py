"""What has to hold in every layer and step: the choices of routers, less those that were dropped, are the tokens that
experts processed.  Where drops are not known, no expert processes more than was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from distprof.merge.arrays import IntArray
from distprof.merge.experts.recorded.hosts import ExpertHost
from distprof.merge.experts.recorded.routing import RoutedTokens
from distprof.merge.report import ExpertLayerStats
from distprof.merge.wording import pluralise

_NOTED = 2


def find_breach(
    name: str,
    hosts: Sequence[ExpertHost],
    sources: Sequence[RoutedTokens],
    iterations: Sequence[int],
    experts: int,
) -> str:
    """Returns a sentence on the first step in which the rule does not hold; empty where it holds.

    ``hosts`` and ``sources`` cover all ranks, and each token once.
    """
    shape = len(iterations), experts
    processed, routed, dropped = (np.zeros(shape, np.int64) for _ in range(3))
    for host in hosts:
        processed[:, list(host.layer.local_experts)] += host.at(iterations)
    drops_known = True
    for source in sources:
        routed += source.at(iterations)
        lost = source.dropped_at(iterations)
        drops_known = drops_known and lost is not None
        dropped += 0 if lost is None else lost
    kept = routed - dropped
    wrong = kept != processed if drops_known else processed > kept
    if not wrong.any():
        return ""
    step = int(np.flatnonzero(wrong.any(axis=1))[0])
    expert = int(np.flatnonzero(wrong[step])[0])
    return _sentence(
        name, iterations[step], expert, routed[step], dropped[step] if drops_known else None, processed[step]
    )


def _sentence(
    name: str, iteration: int, expert: int, routed: IntArray, dropped: IntArray | None, processed: IntArray
) -> str:
    drops = "" if dropped is None else f" and dropped {dropped[expert]:,}"
    return (
        f"{name}: in iteration {iteration} routers chose expert {expert} {routed[expert]:,} times{drops}, but it "
        f"processed {processed[expert]:,} tokens ({routed.sum():,} and {processed.sum():,} over all experts)"
    )


def breach_notes(layers: Sequence[ExpertLayerStats]) -> Iterator[str]:
    """Yields sentences on the layers in which the rule does not hold."""
    breaches = [layer.breach for layer in layers if layer.breach]
    yield from breaches[:_NOTED]
    if len(breaches) > _NOTED:
        yield f"routers' choices and processed tokens disagree in {pluralise(len(breaches) - _NOTED, 'other layer')}"
