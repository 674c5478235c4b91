"""The flops of an iteration by place: rows that add up to all flops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.reports import changed_report, report_of
from support.synthetic import Job, in_memory

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text.blocks.work import work_block
from distprof.records import FORWARD, Counts, Record


def changed_counts(**outside: Any) -> Report:
    """Returns the report of two ranks whose counted step has this work outside of modules."""

    def change(_: int, record: Record) -> Record:
        return replace(record, outside=outside) if isinstance(record, Counts) else record

    return changed_report(change, dp=2)


def test_rows_add_up_to_all_flops() -> None:
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


def test_an_unseen_optimizer_has_no_row() -> None:
    assert [row.where for row in changed_counts(backward_flops=3).work] == ["modules", "(outside modules)"]
    assert changed_counts(optimizer_flops=7, optimizer_macs=2).work[-1].flops == 7


def test_no_backward_rows_without_training() -> None:
    report = report_of(dp=2, mode=FORWARD)
    assert {row.backward_flops for row in report.work} == {None}
    assert "optimizer" not in {row.where for row in report.work}


def test_the_text_has_the_sum() -> None:
    lines = list(work_block(changed_counts(backward_flops=10**9, optimizer_flops=2 * 10**9)))
    cells = {line.split("  ")[0].strip(): line.split() for line in lines}
    assert cells["(outside modules)"][2:4] == ["0", "1"]
    assert cells["(optimizer)"][1:] == ["2", "G", "2", "G"]
    assert lines[-1].split()[0] == "all"


def test_no_work_block_without_counts() -> None:
    assert not list(work_block(report_of(dp=2, counted=False)))


def test_work_beyond_64_bits_is_exact() -> None:
    """Multiplies all work by a power of two, which keeps the other digits."""
    job, unit = Job(dp=2, tp=2, ep=2, noise=0.0, padding=2, split_tokens=True), 1 << 50

    def larger(record: Record) -> Record:
        if not isinstance(record, Counts):
            return record
        arrays = {n: v.astype(object) * unit for n, v in vars(record).items() if n.endswith(("_macs", "_flops"))}
        outside = {name: amount * unit for name, amount in record.outside.items()}
        return replace(record, outside=outside, device_work=(), **arrays)

    shards = in_memory(job)
    large_shards = [replace(shard, records=list(map(larger, shard.records))) for shard in shards]
    plain, large = analyse(run_of_shards(shards)), analyse(run_of_shards(large_shards))
    assert sum(row.flops for row in large.work) > 1 << 64
    for one, other in zip(plain.modules, large.modules, strict=True):
        for name in ("macs", "flops", "self_macs", "bwd_macs", "bwd_flops", "recompute_flops"):
            amount = getattr(one, name)
            assert getattr(other, name) == (None if amount is None else amount * unit), (one.label, name)
    assert [row.flops for row in large.work] == [row.flops * unit for row in plain.work]
    of_model = ("macs", "flops", "executed_macs", "useful_macs")
    assert plain.model.forward is not None and plain.model.forward.useful_macs
    for name in of_model:
        assert getattr(large.model.forward, name) == getattr(plain.model.forward, name) * unit, name
