"""The work of the MoE layers of one rank in its counted step, computed for all its layers at once for speed.

    rows = MACs / elements of the matrices

For an expert, the elements are those of all its matrices.  For a router, they are those of its largest parameter; where
the module that owns it is not called, the MACs are those of its parent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.job.tp_duplicates import CountedWork, Shape
from distprof.merge.load.parameters import ParameterSet
from distprof.plain import dataclass
from distprof.records import ExpertLayer


@dataclass(frozen=True, eq=False)
class MoeWork:
    """Work by layer; repeated work counts once."""

    macs: FloatArray  # of its experts
    flops: FloatArray  # of its experts
    rows: FloatArray  # rows that its experts ran on
    tokens: FloatArray  # tokens that its router saw
    router: FloatArray  # the share of its router's work that counts; 1 where no router was seen


class RankMoeWork:
    """Computes the work of ranks that host the same layers with the same parameters."""

    def __init__(self, shape: Shape, parameters: ParameterSet, layers: Sequence[ExpertLayer]) -> None:
        self._inside = _ByLayer([shape.inside_experts(layer) for layer in layers])
        self._experts = _ByLayer([shape.experts(layer) for layer in layers])
        self._routers = _ByLayer([shape.routers(layer) for layer in layers])
        self._router_elements = np.array([shape.router_elements(layer) for layer in layers], np.float64)
        self._rows_a_mac = np.array([_rows_a_mac(shape, parameters, layer) for layer in layers], np.float64)

    def compute(self, one: CountedWork, share: FloatArray) -> MoeWork:
        """Returns the work of one rank; ``share`` has for each row of its tree how much of its work counts."""
        macs = one.macs * share
        elements = np.maximum(self._router_elements, 1)
        # Rounded down to whole tokens, because a router has a few other products.  0 where no router was seen.
        tokens = np.where(self._router_elements > 0, self._routers.sums(one.macs) // elements, 0)
        return MoeWork(
            macs=self._inside.sums(macs),
            flops=self._inside.sums(one.flops * share),
            rows=self._experts.sums(macs) * self._rows_a_mac,
            tokens=tokens * self._routers.largest(share),
            router=np.where(self._router_elements > 0, self._routers.largest(share), 1.0),
        )


def _rows_a_mac(shape: Shape, parameters: ParameterSet, layer: ExpertLayer) -> float:
    """Returns rows / MACs for all experts of the layer on the rank; a part of the rows where tp slices them."""
    if not layer.local_experts:
        return 0.0
    matrices = parameters.matrices
    owned = [matrices[row] for row in shape.experts(layer).tolist() if row in matrices]
    of_one = sum(one.elements / (layer.num_experts if one.of_all else len(layer.local_experts)) for one in owned)
    return 1 / of_one if of_one else 0.0


class _ByLayer:
    """The rows of the tree that belong to each layer, and reductions over them."""

    def __init__(self, rows: Sequence[IntArray]) -> None:
        self._rows = np.concatenate([np.zeros(0, np.int64), *rows])
        self._layer = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
        self._layers = len(rows)

    def sums(self, values: FloatArray | IntArray) -> FloatArray:
        """Returns the sum by layer, 0 for a layer without rows.  Integers are exact up to 2**53."""
        return np.bincount(self._layer, values[self._rows], self._layers).astype(np.float64)

    def largest(self, values: FloatArray) -> FloatArray:
        """Returns the maximum by layer, 0 for a layer without rows; ``values`` are not negative."""
        found = np.zeros(self._layers)
        np.maximum.at(found, self._layer, values[self._rows])
        return found
