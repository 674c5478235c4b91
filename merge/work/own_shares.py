"""Which share of each rank's matrix products counts for the model, where tensor-parallel ranks repeat some of them."""

from __future__ import annotations

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.job.tp_duplicates import CountedWork


def own_shares(analysis: Analysis) -> dict[int, float]:
    """Returns by rank the share of its forward and backward MACs that counts if repeated work counts once in the job.

    Work outside of modules is taken for repeated.
    """
    sums: dict[int, tuple[float, int]] = {}
    known: dict[tuple[CountedWork, int], tuple[float, int]] = {}
    for part in analysis.counted_groups:
        for rank, one in part.ranks.items():
            share = part.shares[rank]
            if (one, id(share)) not in known:
                known[one, id(share)] = _own_macs(one, share)
            own, everything = known[one, id(share)]
            before, all_before = sums.get(rank, (0.0, 0))
            sums[rank] = before + own, all_before + everything
    return {rank: own / everything if everything else 1.0 for rank, (own, everything) in sums.items()}


def _own_macs(one: CountedWork, share: FloatArray) -> tuple[float, int]:
    """Returns (the MACs that count, all MACs) of the rank."""
    macs = one.macs + one.of_models(one.counts.backward_macs)
    outside = sum(one.outside.get(f"{kind}_macs", 0) for kind in ("forward", "backward"))
    own = float(np.dot(macs, share)) + outside / one.tp
    return own, int(macs.sum()) + outside
