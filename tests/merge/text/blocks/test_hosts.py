"""The Hosts block: one row for each host; of many hosts, those that matter."""

from __future__ import annotations

from dataclasses import replace

from support.reports import report_of

from distprof.merge.report import SLOW_HOST, HostRow, SlowGroup
from distprof.merge.text.blocks.hosts import hosts_block
from distprof.merge.text.blocks.verdict import verdict


def row(number: int, slow: int = 0, own_ns: float | None = 50e6) -> HostRow:
    ranks = tuple(range(8 * number, 8 * number + 8))
    wait = None if own_ns is None else 80e6 - own_ns
    return HostRow(f"node{number}", ranks, ranks[:slow], 80e6, own_ns, wait, 2e6, 3 << 30)


def lines_of(*rows: HostRow) -> list[str]:
    return list(hosts_block(replace(report_of(dp=4), hosts=rows)))


def test_a_row_has_the_figures_of_a_host() -> None:
    head, first, second = lines_of(row(0), row(1, 7, 75e6))[-3:]
    assert head.split("  ")[0] == "host" and "own time" in head and "data wait" in head
    assert first.split() == ["node0", "0-7", "-", "80.00", "50.00", "30.00", "2.00", "3", "GiB"]
    assert second.split() == ["node1", "8-15", "7", "of", "8", "80.00", "75.00", "5.00", "2.00", "3", "GiB"]


def test_one_host_has_no_block_and_unknown_waits_no_column() -> None:
    assert lines_of(row(0)) == []
    assert "own time" not in " ".join(lines_of(row(0, own_ns=None), row(1, own_ns=None)))


def test_of_many_hosts_the_slow_ones_are_shown() -> None:
    lines = lines_of(*(row(number, slow=3 * (number == 77)) for number in range(100)))
    assert lines[-17].split()[:4] == ["node77", "616-623", "3", "of"]
    assert lines[-1].endswith("84 hosts more in summary.json.") and len(lines) < 24


def test_the_verdict_names_hosts_and_single_ranks() -> None:
    report = report_of(dp=4, layers=4, slow_rank=1)
    (one,) = report.verdict.ranks.named
    group = SlowGroup("host", "node1", (0, 2, 3), (2, 3), "forward", "forward", 5e6, 0.1, 9, 10, 2)
    named = tuple(replace(one, rank=rank) for rank in (1, 2, 3))
    found = replace(report.verdict.ranks, named=named, groups=(group,), cause=SLOW_HOST, evidence="x")
    words = " ".join(verdict(replace(report, verdict=replace(report.verdict, ranks=found))))
    assert words.startswith(
        "slow: 2 of 3 ranks of host node1, forward: 5 ms above the other host (the slower of two hosts), 10% of an "
        "iteration, in 9 of 10 steps; rank 1, forward of blocks.1.moe.router: "
    )
    assert "slow host" not in words
