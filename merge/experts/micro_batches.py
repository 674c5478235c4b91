"""The loads of one layer in single micro-batches: their sums over a step hide that each was hot at another place.

    micro-batch = one call of the layer by the ranks that share their tokens' experts: one rank at each ep coordinate
    max/mean    = largest load of an expert, or of an ep rank / mean of the micro-batch's loads

Ranks record single micro-batches only where there are several in a step.  Data-parallel replicas of all experts are
compared each by itself: none waits for the experts of another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.experts.recorded.hosts import ExpertHost
from distprof.merge.experts.recorded.routing import RoutedTokens
from distprof.merge.report import MicroBatches, WorstMicroBatch
from distprof.merge.stats import middle
from distprof.plain import dataclass


@dataclass(frozen=True, eq=False)
class MicroBatchLoads:
    """The loads of the micro-batches of one step, of the ranks that share their tokens' experts."""

    iteration: int
    largest: IntArray  # (micro-batches,): of one expert
    hottest: IntArray  # (micro-batches,): this expert's global id
    by_ep: IntArray  # (ep ranks, micro-batches)


def micro_batch_loads(
    hosts: Sequence[ExpertHost],
    sources: Sequence[RoutedTokens],
    iterations: Sequence[int],
    ep_of_expert: Sequence[int],
    ep: int,
) -> list[MicroBatchLoads]:
    """Returns the loads in the ``iterations``: those that experts processed, or else those that routers kept.

    ``hosts`` are those of a layer whose tokens count, or all where none counted its tokens; each token is in one of the
    ``sources``.  ``ep`` is the number of ep ranks that share the experts.
    """
    found: list[MicroBatchLoads] = []
    for replica in _replicas(hosts, ep):
        if all(host.seen is not None for host in replica):
            found += _processed(replica, iterations, len(ep_of_expert))
        else:
            ranks = {rank for host in replica for rank in host.ranks}
            own = [source for source in sources if source.rank in ranks]
            found += _kept(own, iterations, np.array(ep_of_expert), ep)
    return found


def micro_batches(every: Sequence[MicroBatchLoads], iterations: Sequence[int], experts: int) -> MicroBatches | None:
    """Returns what single micro-batches show; None where no step has several with tokens."""
    if not every:
        return None
    counts = [len(one.largest) for one in every]
    iteration = np.repeat([one.iteration for one in every], counts)
    number = np.concatenate([np.arange(count) for count in counts])
    by_ep: IntArray = np.concatenate([one.by_ep for one in every], axis=1)
    tokens = by_ep.sum(axis=0)
    hottest = np.concatenate([one.hottest for one in every])
    of_experts = _over_mean(np.concatenate([one.largest for one in every]), tokens, experts)
    of_ep = _over_mean(by_ep.max(axis=0), tokens, len(by_ep))
    if np.isnan(of_experts).all():
        return None

    def worst(ratios: FloatArray, places: IntArray) -> WorstMicroBatch:
        at = int(np.nanargmax(ratios))
        return WorstMicroBatch(float(ratios[at]), int(iteration[at]), int(number[at]), int(places[at]))

    times = Counter(hottest[tokens > 0].tolist())
    distributed = len(by_ep) > 1
    return MicroBatches(
        compared=int(np.count_nonzero(tokens)),
        a_step=float(middle(np.array(counts))),
        max_over_mean=float(middle(of_experts[tokens > 0])),
        worst=worst(of_experts, hottest),
        times_hottest=tuple(times.get(expert, 0) for expert in range(experts)),
        ep_max_over_mean=float(middle(of_ep[tokens > 0])) if distributed else None,
        ep_worst=worst(of_ep, by_ep.argmax(axis=0)) if distributed else None,
        worst_by_step=tuple(_largest(of_experts[iteration == step]) for step in iterations),
    )


def _replicas(hosts: Sequence[ExpertHost], ep: int) -> Iterator[list[ExpertHost]]:
    """Yields hosts of all experts together, one at each ep coordinate: the first at each, then the second.

    Ranks of one replica have the same place among those of their ep coordinate, however a mesh orders its ranks.
    """
    by_ep: list[list[ExpertHost]] = [[] for _ in range(ep)]
    for host in sorted(hosts, key=lambda host: host.rank):
        by_ep[host.ep].append(host)
    if len({len(places) for places in by_ep}) == 1:  # else one has not recorded them
        yield from map(list, zip(*by_ep, strict=True))


def _processed(replica: Sequence[ExpertHost], iterations: Sequence[int], experts: int) -> Iterator[MicroBatchLoads]:
    if sum(len(host.layer.local_experts) for host in replica) != experts:
        return
    for iteration in iterations:
        calls = [host.seen.calls[iteration] for host in replica if host.seen and iteration in host.seen.calls]
        if len(calls) != len(replica) or len({len(one.tokens) for one in calls}) != 1:
            continue
        ids = [np.array(host.layer.local_experts) for host in replica]
        largest = np.stack([one.largest for one in calls]).astype(np.int64)
        hottest = np.stack([own[one.hottest.clip(max=len(own) - 1)] for own, one in zip(ids, calls, strict=True)])
        at, number = largest.argmax(axis=0), np.arange(largest.shape[1])
        tokens = np.stack([one.tokens for one in calls]).astype(np.int64)
        yield MicroBatchLoads(iteration, largest[at, number], hottest[at, number], tokens)


def _kept(
    sources: Sequence[RoutedTokens], iterations: Sequence[int], ep_of_expert: IntArray, ep: int
) -> Iterator[MicroBatchLoads]:
    for iteration in iterations:
        calls = [source.kept_by_call[iteration] for source in sources if iteration in source.kept_by_call]
        if not calls or len(calls) != len(sources) or len({one.shape for one in calls}) != 1:
            continue
        loads: IntArray = np.sum(calls, axis=0)
        by_ep = np.stack([loads[:, ep_of_expert == place].sum(axis=1) for place in range(ep)])
        yield MicroBatchLoads(iteration, loads.max(axis=1), loads.argmax(axis=1), by_ep)


def _over_mean(largest: IntArray, tokens: IntArray, places: int) -> FloatArray:
    """Returns max/mean by micro-batch, NaN for one without tokens."""
    ratios: FloatArray = np.divide(largest * float(places), tokens, out=np.full(len(tokens), np.nan), where=tokens > 0)
    return ratios


def _largest(ratios: FloatArray) -> float | None:
    known = ratios[~np.isnan(ratios)]
    return float(known.max()) if len(known) else None
