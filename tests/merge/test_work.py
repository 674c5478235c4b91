"""Where the flops of an iteration are: rows that add up to all that ran."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.reports import report_of
from support.synthetic import Job, in_memory

from distprof.merge.analyse import analyse
from distprof.merge.load import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text.work import work_block
from distprof.records import FORWARD, Counts, Record


def bent(**outside: Any) -> Report:
    """A report of two ranks whose counted step had this outside of modules."""
    shards = in_memory(Job(dp=2))

    def changed(record: Record) -> Record:
        return replace(record, outside=outside) if isinstance(record, Counts) else record

    shards = [replace(shard, records=list(map(changed, shard.records))) for shard in shards]
    return analyse(run_of_shards(shards))


def test_the_rows_are_all_that_ran() -> None:
    report = report_of(dp=2, noise=0.0)
    rows = {row.where: row for row in report.work}
    assert list(rows) == ["modules", "(outside modules)", "(optimizer)"]
    root = next(module for module in report.modules if module.parent < 0)
    assert rows["modules"].forward_flops == root.flops
    assert rows["modules"].backward_flops == root.bwd_flops
    assert rows["(optimizer)"].flops == rows["(optimizer)"].optimizer_flops == 1000
    summary = report.summary
    summed = (summary.fwd_flops_per_rank, summary.bwd_flops_per_rank, summary.recompute_flops_per_rank)
    assert sum(row.flops for row in report.work) == pytest.approx(sum(part or 0 for part in summed) + 1000)


def test_an_optimizer_that_nobody_saw_is_no_row_of_nothing() -> None:
    assert [row.where for row in bent(backward_flops=3).work] == ["modules", "(outside modules)"]
    assert bent(optimizer_flops=7, optimizer_macs=2).work[-1].flops == 7


def test_forwards_alone_have_forward_rows() -> None:
    report = report_of(dp=2, mode=FORWARD)
    assert {row.backward_flops for row in report.work} == {None}
    assert "optimizer" not in {row.where for row in report.work}


def test_the_text_adds_up() -> None:
    lines = list(work_block(bent(backward_flops=10**9, optimizer_flops=2 * 10**9)))
    cells = {line.split("  ")[0].strip(): line.split() for line in lines}
    assert cells["(outside modules)"][2:4] == ["0", "1"]
    assert cells["(optimizer)"][1:] == ["2", "G", "2", "G"]
    assert lines[-1].split()[0] == "all"


def test_what_was_not_counted_has_no_block() -> None:
    assert not list(work_block(report_of(dp=2, counted=False)))
