"""The Ops block: the ops with most flops, then those with most time, and how many are left out."""

from __future__ import annotations

from dataclasses import replace

from support.reports import report_of

from distprof.merge.report import OpStats
from distprof.merge.text.blocks.ops import ops_block

REPORT = report_of(dp=1)


def block(*ops: OpStats) -> list[str]:
    return list(ops_block(replace(REPORT, ops=ops)))


def test_no_block_without_ops() -> None:
    assert block() == []


def test_a_row_for_each_op() -> None:
    product = OpStats("aten.mm", "forward", 2, 500, 1000, 250_000)
    copy = OpStats("aten.copy_", "backward", 1, 0, 0, 750_000)
    rows = [" ".join(row.split()) for row in block(product, copy)]
    assert rows[3] == "aten.mm forward 2 500 MACs 1 K 100% 250.00 25% 4 MFLOPS"
    assert rows[4] == "aten.copy_ backward 1 0 MACs 0 0% 750.00 75% 0 FLOPS"
    assert len(rows) == 5


def test_unmeasured_times_are_na() -> None:
    (row,) = block(OpStats("aten.mm", "forward", 2, 500, 1000, None))[3:]
    assert row.split()[-3:] == ["n/a"] * 3


def test_ops_with_most_flops_and_longest_time_are_shown() -> None:
    heavy = [OpStats(f"aten.heavy{n}", "forward", 1, 0, 1000 - n, 1000) for n in range(20)]
    long = [OpStats(f"aten.long{n}", "forward", 1, 0, 0, 5000 + n) for n in range(10)]
    rows = block(*heavy, *long)
    names = [row.split()[0] for row in rows[3:-1]]
    assert names == [f"aten.heavy{n}" for n in range(16)] + [f"aten.long{n}" for n in range(9, 1, -1)]
    assert rows[-1] == f"6 more: {100 * 3930 / 19810:.2f}% of the flops, {100 * 14001 / 70045:.2f}% of the time"
