"""What the analysis asks about a rank's parameters; ranks that wrote the same records share one answer."""

from __future__ import annotations

from collections.abc import Sequence

from distprof.records import AXES, Parameters


class ParameterSet:
    """The parameters of one rank, tied ones left out: each object once."""

    def __init__(self, records: Sequence[Parameters]) -> None:
        """``records``: one a root."""
        self.counted = tuple(p for record in records for p in record.parameters if not p.tied_to)
        #: With data-parallel sharding undone; None when the rank recorded no parameters.
        self.rank_numel = sum(p.rank_numel for p in self.counted) if records else None
        #: Axes on which ranks hold different parameters under one name.
        self.split_axes = tuple(axis for axis in AXES if any(axis in p.split for p in self.counted))
        #: Rows of the tree whose parameters tensor parallelism cuts.
        self.sliced_rows = frozenset(p.row for p in self.counted if p.rank_numel < p.global_numel)
