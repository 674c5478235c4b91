"""How much of each rank's matrix products is the model's own, where tensor-parallel ranks do some of them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distprof.merge.model_work import tensor_peers
from distprof.merge.replicas import Counted
from distprof.merge.topology import Layout
from distprof.merge.window import padded


def own_shares(counted: Mapping[int, Counted], layout: Layout) -> dict[int, float]:
    """By rank: the share of its MACs of forward and backward that counts when each is counted once in the job.

    What is outside of any module counts as done alike.
    """
    peers = tensor_peers(layout, list(counted))
    return {
        rank: _own_share(one, [counted[peer] for peer in peers[rank] if peer != rank]) if one.tp > 1 else 1.0
        for rank, one in counted.items()
    }


def _own_share(one: Counted, peers: Sequence[Counted]) -> float:
    macs = one.macs + padded(one.counts.backward_macs, len(one.data.tree))
    outside = sum(one.counts.outside.get(f"{kind}_macs", 0) for kind in ("forward", "backward"))
    everything = int(macs.sum()) + outside
    own = float(np.dot(macs, one.shares(peers))) + outside / one.tp
    return own / everything if everything else 1.0
