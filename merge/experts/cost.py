"""What unequal times of ep ranks in a layer cost, and what of it equal loads would save.

    times of the layer and all modules inside - waits in them -> own time by rank and step
    -> mean over the ranks of an ep coordinate -> cost of a step = largest - mean -> median over steps

The layer waits for its slowest ep rank, since its dispatch and its combine are barriers.  With equal loads each ep rank
would take what its device takes for the mean of the tokens (distprof.merge.experts.tokens_or_device).  Both are of one
step, so that a hot expert which is another one in each step costs as much as one that stays; where a step has several
micro-batches whose tokens are known, what equal loads save is that of each.  Where the experts of all ep ranks run on
as many rows, on a capacity that empty slots fill (distprof.merge.experts.empty_slots), loads are equal.

On a host with too few processors a rank seems slow that only waits for one: no device is blamed for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.collectives.own_times import RankWaits, rank_waits, waited_by_step, why_no_own_times
from distprof.merge.experts.layer_times import enclosing_layers
from distprof.merge.experts.micro_batches import MicroBatchLoads
from distprof.merge.experts.recorded.hosts import ExpertHost
from distprof.merge.experts.tokens_or_device import saved_in_micro_batches, tokens_or_device
from distprof.merge.report import ExpertLayerStats, TokensOrDevice
from distprof.merge.stats import middle
from distprof.plain import dataclass
from distprof.records import NO_ROW


@dataclass(frozen=True, eq=False)
class EpTimes:
    """The own times of the ep ranks in one layer, forward and backward together."""

    iterations: tuple[int, ...]
    own_ns: FloatArray  # (ep ranks, iterations), NaN for an ep rank without a time
    running_ns: FloatArray  # the same without what ranks wait for a processor, as far as that was seen


def ep_times(analysis: Analysis, hosts: Sequence[ExpertHost], counted: Sequence[int], size: int) -> EpTimes | None:
    """Returns the own times by ep coordinate, of ``size``, in the steps that all ``hosts`` of a layer timed, and whose
    tokens are known: ``counted``, or all of them where it is empty.

    None where waits are not known, and where the experts are not distributed.
    """
    if why_no_own_times(analysis) or size < 2:
        return None
    timed = [(host, rank) for host in hosts if host.timed for rank in host.ranks]
    if not timed:
        return None
    windows = analysis.timed_windows
    every = set.intersection(*map(set, {windows[rank].iterations for _, rank in timed}))
    shared = sorted(every.intersection(counted) if counted else every)
    sums, running, ranks = np.zeros((size, len(shared))), np.zeros((size, len(shared))), np.zeros((size, 1))
    for host, rank in timed:
        kept = np.isin(windows[rank].iterations, shared)
        own = _own_times(analysis)[rank][host.number, kept]
        sums[host.ep] += own
        running[host.ep] += own * (1 - _waiting_shares(analysis)[rank][kept])
        ranks[host.ep] += 1
    if not shared:
        return None
    own_ns, running_ns = (np.where(ranks > 0, each / np.maximum(ranks, 1), np.nan) for each in (sums, running))
    return EpTimes(tuple(shared), own_ns, running_ns)


def with_costs(
    layer: ExpertLayerStats,
    times: EpTimes | None,
    loads: FloatArray | None,
    micro_batches: Sequence[MicroBatchLoads] = (),
) -> ExpertLayerStats:
    """Returns the layer with what unequal times cost; ``loads`` are the tokens of the ep ranks, (ep ranks, iterations),
    None where they are not known in the iterations of ``times``.
    """
    if times is None:
        return layer
    known = bool(np.isfinite(times.own_ns).all())
    medians = middle(times.own_ns, axis=1)
    if loads is not None and layer.empty is not None and layer.empty.equal_rows:
        loads, micro_batches = np.ones_like(loads), ()  # experts run on their capacity
    found = _cause(times, loads) if known and loads is not None else None
    saved = None if found is None else found.saved_by_equal_tokens_ns
    if found is not None and loads is not None and micro_batches:
        saved = saved_in_micro_batches(times.own_ns, loads, found, _by_step(times.iterations, loads, micro_batches))
    return replace(
        layer,
        ep_own_ns=tuple(None if np.isnan(own) else float(own) for own in medians),
        ep_cost_ns=float(middle(times.own_ns.max(axis=0) - times.own_ns.mean(axis=0))) if known else None,
        load_cost_ns=saved,
        tokens_or_device=found,
    )


def _cause(times: EpTimes, loads: FloatArray) -> TokensOrDevice | None:
    """Returns what makes ep ranks differ.  A rank is slow only if it is also slow while it has a processor."""
    found = tokens_or_device(times.own_ns, loads)
    if found is None or max(found.slowness) == 1:
        return found
    running = tokens_or_device(times.running_ns, loads)
    if running is None:
        return found
    are_slow = all(own > 1 for own, at_all in zip(running.slowness, found.slowness, strict=True) if at_all > 1)
    return found if are_slow else running


def _by_step(
    iterations: Sequence[int], loads: FloatArray, micro_batches: Sequence[MicroBatchLoads]
) -> list[list[FloatArray]]:
    """Returns for each iteration the tokens (ep ranks, micro-batches) of each replica; all of a step where that is not
    known.
    """
    found: dict[int, list[FloatArray]] = {}
    for one in micro_batches:
        found.setdefault(one.iteration, []).append(one.by_ep.astype(np.float64))
    return [found.get(iteration, [loads[:, [step]]]) for step, iteration in enumerate(iterations)]


@computed_once
def _waiting_shares(analysis: Analysis) -> dict[int, FloatArray]:
    """Returns by rank and step the share of its own time in which it waits for a processor, 0 where it was not seen.

    In which module it waits is not known: the share is taken to be that of all.
    """
    found = {}
    for rank, window in analysis.timed_windows.items():
        own_ns = window.durations_ns - waited_by_step(analysis, rank, lambda waits: np.ones(len(waits.wait_ns), bool))
        seen = len(window.processor_waits_ns) == window.steps
        waits_ns = np.nan_to_num(window.processor_waits_ns) if seen else np.zeros(window.steps)
        found[rank] = (waits_ns / np.maximum(own_ns, 1)).clip(0, 1)
    return found


@computed_once
def _own_times(analysis: Analysis) -> dict[int, FloatArray]:
    """Returns by rank the own times (layers, steps) of all its layers."""
    enclosing = enclosing_layers(analysis)
    found = {}
    for column, data in enumerate(analysis.ranks):
        window = analysis.timed_windows.get(data.rank)
        if window is None or window.layers_ns is None:
            continue
        own = window.layers_ns.astype(np.float64)
        if data.rank in rank_waits(analysis):
            places = analysis.union.index(column)[[layer.row for layer in data.layers]]
            own -= _waits(rank_waits(analysis)[data.rank], window.iterations, enclosing, places)
        found[data.rank] = np.maximum(own, 0)
    return found


def _waits(waits: RankWaits, iterations: Sequence[int], enclosing: IntArray, places: IntArray) -> FloatArray:
    """Returns the waits of one rank inside its layers, (layers, steps); ``places`` are the layers in the union."""
    steps = np.array(iterations, np.int64)
    sums = np.zeros((len(places), len(steps)))
    kept = (waits.owner != NO_ROW) & np.isin(waits.iteration, steps)
    owner = waits.owner[kept]
    layer = enclosing[np.where(owner < 0, ~owner, owner)]
    order = np.argsort(places)
    at = np.searchsorted(places, layer, sorter=order).clip(max=len(places) - 1)
    number = order[at]
    inside = places[number] == layer
    step = np.searchsorted(steps, waits.iteration[kept])
    np.add.at(sums, (number[inside], step[inside]), waits.wait_ns[kept][inside])
    return sums
