"""What the report says of the clocks of several hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from support.synthetic import MS, WALL_NS, Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import HostClockRow, Report
from distprof.merge.text.blocks.header import header_block
from distprof.records import ClockOffset, Header, Record

SHIFT_NS = 1_230 * MS  # of the wall clock of the second host, and 7 s of its monotonic one


def two_hosts(offsets: Iterable[ClockOffset]) -> Report:
    """Two ranks on two hosts; the second writes ``offsets``."""

    def records(rank: int) -> list[Record]:
        header, *rest = rank_records(Job(dp=2), rank)
        assert isinstance(header, Header)
        mono_ns = 1_000 * MS + 7_000 * MS * rank
        own = replace(
            header, host=f"node{rank}", clock_domain=f"d{rank}", wall_ns=WALL_NS + rank * SHIFT_NS, mono_ns=mono_ns
        )
        return [own, *rest, *(offsets if rank else [])]

    return analyse(run_of_shards([shard_of(records(rank)) for rank in range(2)]))


def clocks_line(report: Report) -> str:
    """The entry of the text, on one line."""
    text = " ".join(header_block(report))
    return " ".join(text.partition("clocks:")[2].partition("topology:")[0].split())


def test_hosts_that_were_compared() -> None:
    first = ClockOffset("d0", 7_000 * MS, -7_000 * MS, 9_000, 100)
    last = ClockOffset("d0", 9_000 * MS, -7_000 * MS - 200_000, 11_000, 100)
    report = two_hosts([first, last])
    reference, other = report.clocks.hosts
    assert reference == HostClockRow("node0", (0,), 0, 0.0, 0, 0)
    assert (other.ahead_ns, other.drift_ppm, other.measurements) == (SHIFT_NS, 100.0, 2)
    assert other.bound_ns is not None
    assert 9_000 <= other.bound_ns <= 11_500
    assert report.clocks.bound_ns == other.bound_ns
    assert clocks_line(report).startswith(
        "that of node1 is 1.23 s ahead of node0, and runs 100 ppm faster; moments on different hosts compare within "
    )


def test_hosts_that_were_not_compared() -> None:
    report = two_hosts([])
    assert report.clocks.bound_ns is None
    assert report.clocks.hosts[1] == HostClockRow("node1", (1,), None, None, None, 0)
    assert clocks_line(report) == (
        "the clock of node1 was not compared with that of node0: moments on different hosts do not compare"
    )


def test_one_host_needs_no_words() -> None:
    report = analyse(run_of_shards([shard_of(rank_records(Job(dp=2), rank)) for rank in range(2)]))
    assert report.clocks.bound_ns == 0
    assert report.clocks.unknown == ""
    assert clocks_line(report) == ""
