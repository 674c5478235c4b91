"""Memory of ranks: their own bytes, and ranks that differ from their cohort."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.reports import changed_report, report_of

from distprof.merge.report import Report
from distprof.merge.text.blocks.memory import memory_block
from distprof.merge.times.memory import memory_differences
from distprof.records import Memory, MemoryUnknown, Record

MIB = 1 << 20


def report(heavy: int, more: int, **job: Any) -> Report:
    """Returns a report in which rank ``heavy`` has ``more`` additional bytes of optimizer state."""

    def change(rank: int, record: Record) -> Record:
        if isinstance(record, Memory) and rank == heavy:
            return replace(record, optimizer_bytes=record.optimizer_bytes + more)
        return record

    return changed_report(change, **job)


def test_every_rank_has_its_own_bytes() -> None:
    found = report_of(dp=2, tp=2)
    for row in found.ranks:
        assert row.params is not None and row.parameter_bytes == row.gradient_bytes == 4 * row.params
        assert row.optimizer_bytes == 2 * row.parameter_bytes
    table = list(memory_block(found))
    assert [line.split()[0] for line in table[-4:]] == ["0", "1", "2", "3"]
    assert re.search(r"KiB +[\d.]+ KiB +[\d.]+ (KiB|MiB) +300 MiB$", table[-4])


def test_a_rank_that_holds_more_than_its_cohort_is_named() -> None:
    found = report(2, 40 * MIB, dp=4)
    (one,) = [difference for difference in found.memory if difference.what != "peak"]
    assert (one.rank, one.what) == (2, "optimizer state")
    assert one.own_bytes - one.cohort_bytes == 40 * MIB
    assert any(re.match(r"rank 2: optimizer state [\d.]+ MiB, 40 MiB above", line) for line in memory_block(found))


def test_unmeasured_memory_has_a_reason() -> None:
    def unknown(_: int, record: Record) -> Record:
        return MemoryUnknown(record.iteration, "an odd tensor") if isinstance(record, Memory) else record

    found = changed_report(unknown, dp=2)
    assert {row.parameter_bytes for row in found.ranks} == {None}
    assert list(memory_block(found))[-1] == "n/a: memory of ranks 0-1: an odd tensor"


def test_ranks_of_different_roles_are_not_compared() -> None:
    assert [one for one in report(-1, 0, dp=3, pp=2).memory if one.what != "peak"] == []


def test_only_the_extremes_of_a_ramp_are_named() -> None:
    rows = [replace(report_of(dp=1).ranks[0], rank=rank, cohort=0) for rank in range(1001)]
    ramp = [replace(row, peak_memory_bytes=(1000 + row.rank) * MIB) for row in rows]
    found = [one for one in memory_differences(ramp) if one.what == "peak"]
    assert [(one.rank, one.others) for one in found] == [(0, 425), (1000, 425)], "5% of 1,500 MiB are 75"
    text = "\n".join(memory_block(replace(report_of(dp=1), memory=tuple(found))))
    assert "rank 1000: peak 1.95 GiB, 500 MiB above its cohort's median (425 more ranks above by much)" in text


def test_two_ranks_are_not_compared() -> None:
    assert [one for one in report(0, 40 * MIB, dp=2).memory if one.what != "peak"] == []


def test_many_ranks_are_shown_by_cohort() -> None:
    lines = list(memory_block(report_of(dp=20, pp=2, steps=1)))
    assert [line.split("  ")[0] for line in lines if re.match(r"\d+-\d+ ", line)] == ["0-19", "20-39"]
    assert max(map(len, lines)) <= 120


def test_of_many_cohorts_those_with_extreme_peaks_are_shown() -> None:
    """Each of 206 ranks does other work, and the peaks are a ramp."""
    found = report_of(dp=1)
    ramp = [replace(found.ranks[0], rank=n, cohort=n, peak_memory_bytes=(2000 - n) * MIB) for n in range(206)]
    lines = list(memory_block(replace(found, ranks=tuple(reversed(ramp)))))
    start = next(place for place, line in enumerate(lines) if line.startswith("ranks "))
    shown = [line.split("  ")[0] for line in lines[start + 1 :]]
    assert shown == [*map(str, range(8)), "190 with peaks between, in summary.json", *map(str, range(198, 206))]


def test_no_memory_block_without_records() -> None:
    found = report_of(dp=2, mode="forward")
    assert found.ranks[0].parameter_bytes is None
    assert list(memory_block(found)) == []


@given(st.lists(st.integers(0, 100), min_size=3, max_size=9))
def test_differences_are_large_and_from_the_median(held: list[int]) -> None:
    row = report_of(dp=1).ranks[0]
    rows = [
        replace(row, rank=rank, cohort=0, gradient_bytes=size * MIB, parameter_bytes=0, optimizer_bytes=0)
        for rank, size in enumerate(held)
    ]
    found = memory_differences(rows)
    middle = sorted(held)[len(held) // 2] if len(held) % 2 else None
    assert all(one.what == "gradients" for one in found)
    for one in found:
        assert abs(one.own_bytes - one.cohort_bytes) >= max(MIB, 0.05 * one.cohort_bytes)
        assert middle is None or one.cohort_bytes == middle * MIB
