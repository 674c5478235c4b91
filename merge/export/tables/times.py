"""The tables of times over ranks: where ranks disagree, and collectives."""

from __future__ import annotations

from distprof.merge.export.tables.table import Maker, RowTable
from distprof.merge.report import CollectiveRow, SkewRow

SKEW: RowTable[SkewRow] = RowTable(
    "skew",
    "one phase, or one module in one phase: its self time over ranks",
    lambda report: (*report.skew.phases, *report.skew.modules),
    (
        Maker("subject", "phase, or label of a module"),
        Maker("phase", "iteration, or one of its phases"),
        Maker("min_ns", "the least over ranks"),
        Maker("median_ns", "the median over ranks"),
        Maker("max_ns", "the largest over ranks"),
        Maker("max_over_median", "the largest / the median", lambda row: row.ratio),
        Maker("excess_ns", "the largest of (rank - median of the others of its cohort)"),
        Maker("slowest_rank", "the rank of this excess"),
        Maker("ranks", "ranks with a time"),
        Maker("wait_ns", "wait in collectives, median over ranks; the other times are without it"),
    ),
)

COLLECTIVES: RowTable[CollectiveRow] = RowTable(
    "collectives",
    "one op in groups of one kind, means over its ranks and the timed iterations",
    lambda report: report.collectives.rows,
    (
        Maker("kind", "axis of the groups"),
        Maker("op", "all_reduce, ..."),
        Maker("groups", "number of groups"),
        Maker("members", "ranks of the largest group"),
        Maker("calls", "calls of one rank in one iteration", counts=True),
        Maker("bytes", "of the larger of input and output, in one iteration"),
        Maker("own_ns", "the rest of the turns in which ranks wait"),
        Maker("wait_ns", "wait for the last member"),
        Maker("transfer_ns", "from the arrival of the last member to completion"),
        Maker("bytes_per_second", "bytes / transfer"),
        Maker("share", "share of wait and transfer in the iteration, of 1"),
    ),
)
