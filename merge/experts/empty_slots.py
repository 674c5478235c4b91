"""What empty slots cost: rows that experts run on without a token, because they run on their whole capacity.

    share of empty rows = 1 - (choices that routers kept) / (rows that experts ran on), over all ranks, counted step
    cost                = share * time of the experts in an iteration, mean over ranks

Where all ep ranks run on as many rows, whatever their tokens, unequal tokens cost no time: empty slots are the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.experts.recorded.hosts import ExpertHost
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.merge.report import EmptySlots, LayerTimes
from distprof.merge.work.model_flops import LayerShare, layer_key, layer_shares
from distprof.merge.work.moe_flops import RankMoeWork

#: ep ranks run on as many rows where the largest exceeds the mean by no more than this share.
_EQUAL = 0.01


def empty_slots(analysis: Analysis, hosts: Sequence[ExpertHost], times: LayerTimes | None) -> EmptySlots | None:
    """Returns the empty rows of the layer of these hosts; None where they are not known on all ranks."""
    first = hosts[0]
    key = layer_key(first.data, first.layer, analysis.pipelines[first.rank])
    found: LayerShare | None = layer_shares(analysis).get(key)
    if found is None:
        return None
    experts_ns = times.experts_ns if times is not None else None
    return EmptySlots(
        rows=found.rows,
        share=found.padding,
        cost_ns=None if experts_ns is None else found.padding * experts_ns,
        equal_rows=found.padding > 0 and _are_equal(_rows_by_ep(analysis, hosts)),
    )


def _rows_by_ep(analysis: Analysis, hosts: Sequence[ExpertHost]) -> FloatArray:
    """Returns the rows by ep rank; an ep rank without a recorded one has none."""
    rows = np.zeros(1 + max(host.ep for host in hosts))
    for host in hosts:
        for rank in host.ranks:
            rows[host.ep] += _rows(analysis)[rank][host.number]
    return rows


def _are_equal(rows: FloatArray) -> bool:
    return len(rows) > 1 and bool(rows.max() <= (1 + _EQUAL) * rows.mean())


@computed_once
def _rows(analysis: Analysis) -> dict[int, FloatArray]:
    """Returns by rank the rows that the experts of each of its layers ran on in the counted step."""
    known: dict[CountedWork, FloatArray] = {}  # ranks that counted the same share an object
    for one in analysis.counted.values():
        if one not in known:
            moe = RankMoeWork(one.shape, one.data.parameters, one.layers)
            known[one] = moe.compute(one, np.ones(len(one.data.tree))).rows
    return {rank: known[one] for rank, one in analysis.counted.items()}
