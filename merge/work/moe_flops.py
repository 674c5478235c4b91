"""What the MoE layers that a rank hosts did in its counted step, all of them at once: ranks host dozens.

Rows are MACs / elements of the matrix: of a router's its largest parameter (some do not call the module that owns it:
the MACs are then its parent's), of an expert's all its matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.job.tp_duplicates import CountedRank, Shape
from distprof.merge.load.parameters import ParameterSet
from distprof.records import ExpertLayer


@dataclass(frozen=True, eq=False)
class MoeWork:
    """By layer."""

    macs: FloatArray  # of its experts, unique work
    flops: FloatArray
    rows: FloatArray  # that its experts ran on
    tokens: FloatArray  # that its router saw


class RankMoeWork:
    """The layers of ranks that host the same ones, with the same parameters."""

    def __init__(self, shape: Shape, parameters: ParameterSet, layers: Sequence[ExpertLayer]) -> None:
        self._inside = _ByLayer([shape.inside_experts(layer) for layer in layers])
        self._experts = _ByLayer([shape.experts(layer) for layer in layers])
        self._routers = _ByLayer([shape.routers(layer) for layer in layers])
        self._router_elements = np.array([shape.router_elements(layer) for layer in layers], np.float64)
        self._rows_a_mac = np.array([_rows_a_mac(shape, parameters, layer) for layer in layers], np.float64)

    def done(self, one: CountedRank, share: FloatArray) -> MoeWork:
        """By a rank that hosts them; ``share``: by row of its tree, how much of its work counts."""
        macs = one.macs * share
        elements = np.maximum(self._router_elements, 1)
        # Whole tokens: what else a router multiplies is little.  None where no router was seen.
        tokens = np.where(self._router_elements > 0, self._routers.sums(one.macs) // elements, 0)
        return MoeWork(
            macs=self._inside.sums(macs),
            flops=self._inside.sums(one.flops * share),
            rows=self._experts.sums(macs) * self._rows_a_mac,
            tokens=tokens * self._routers.largest(share),
        )


def _rows_a_mac(shape: Shape, parameters: ParameterSet, layer: ExpertLayer) -> float:
    """Of all the rank's experts of the layer together; where tensor parallelism cuts them, its part of these rows."""
    matrices = parameters.matrices
    sizes = [matrices[row] for row in shape.experts(layer).tolist() if row in matrices]
    own, whole = (sum(size[part] for size in sizes) for part in (0, 1))
    return len(layer.local_experts) / whole if own and whole else 0.0


class _ByLayer:
    """Some rows of each layer, for sums over them."""

    def __init__(self, rows: Sequence[IntArray]) -> None:
        self._rows = np.concatenate([np.zeros(0, np.int64), *rows])
        self._layer = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
        self._layers = len(rows)

    def sums(self, values: FloatArray | IntArray) -> FloatArray:
        """By layer; 0 where it has none of them.  Integers are exact up to 2**53."""
        return np.bincount(self._layer, values[self._rows], self._layers).astype(np.float64)

    def largest(self, values: FloatArray) -> FloatArray:
        """By layer, of values that are not negative; 0 where it has none of them."""
        found = np.zeros(self._layers)
        np.maximum.at(found, self._layer, values[self._rows])
        return found
