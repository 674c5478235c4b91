"""What the report says of the clocks of several hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS, WALL_NS, Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.analysis import start_analysis
from distprof.merge.collectives.job_clock import clock_of
from distprof.merge.load.run import LoadedRun, run_of_shards
from distprof.merge.report import HostClockRow, Report
from distprof.merge.text.blocks.header import header_block
from distprof.records import ClockOffset, Collectives, Header, Record

SHIFT_NS = 1_230 * MS  # of the wall clock of the second host, and 7 s of its monotonic one


def two_hosts(offsets: Iterable[ClockOffset], messages: Sequence[Collectives] = ()) -> Report:
    """Two ranks on two hosts; the second writes ``offsets``, and each has its one of ``messages``."""

    def records(rank: int) -> list[Record]:
        header, *rest = rank_records(Job(dp=2), rank)
        assert isinstance(header, Header)
        mono_ns = 1_000 * MS + 7_000 * MS * rank
        own = replace(
            header, host=f"node{rank}", clock_domain=f"d{rank}", wall_ns=WALL_NS + rank * SHIFT_NS, mono_ns=mono_ns
        )
        return [own, *rest, *(offsets if rank else []), *messages[rank : rank + 1]]

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
    assert reference == HostClockRow("node0", (0,), 0, 0.0, 0.0, 0, 0)
    assert (other.ahead_ns, other.drift_ppm, other.measurements) == (SHIFT_NS, 100.0, 2)
    assert other.drift_bound_ppm == 10.0  # 20 us in 2 s
    assert other.bound_ns is not None
    assert 9_000 <= other.bound_ns <= 11_500
    assert report.clocks.bound_ns == other.bound_ns
    assert clocks_line(report).startswith(
        "that of node1 is 1.23 s ahead of node0, and runs 100 ppm (+- 10) faster; moments on different hosts compare "
    )


def test_hosts_that_were_not_compared() -> None:
    report = two_hosts([])
    assert report.clocks.bound_ns is None
    assert report.clocks.hosts[1] == HostClockRow("node1", (1,), None, None, None, None, 0)
    assert clocks_line(report) == (
        "the clock of node1 was not compared with that of node0: moments on different hosts do not compare"
    )


def simulated_hosts(ahead_ms: float, offsets: tuple[ClockOffset, ...] = ()) -> Report:
    return analyse(simulated_run(ahead_ms, offsets))


def simulated_run(ahead_ms: float, offsets: tuple[ClockOffset, ...] = ()) -> LoadedRun:
    """Two ranks on each of two hosts; the wall clock of the second one is ahead, and ``offsets`` were measured.

    The monotonic clock is the same on both.
    """
    group = {"world": tuple(range(4))}
    run = SimulatedJob(data_parallel(lambda rank, step: 8 * ((rank + step) % 4 == 0)), 4, group, steps=12).run()
    ranks = []
    for data in run.ranks:
        second = data.rank // 2
        host, wall_ns = f"node{second}", data.header.wall_ns + round(ahead_ms * MS) * second
        header = replace(data.header, host=host, clock_domain=host, wall_ns=wall_ns)
        ranks.append(replace(data, header=header, clock_offsets=offsets if second else ()))
    return replace(run, ranks=tuple(ranks))


def test_collectives_correct_clocks_that_were_not_compared() -> None:
    clocks = (report := simulated_hosts(30)).clocks
    assert clocks.shift_error_ns is not None and clocks.error_ns == clocks.shift_error_ns <= 10 * MS
    assert clocks.hosts[0].shift_ns == 0
    assert abs(clocks.hosts[1].shift_ns + 30 * MS) <= clocks.shift_error_ns
    words = clocks_line(report)
    assert words.startswith("the clock of node1 was not compared with that of node0; collectives, which their members ")
    assert "correct that of node1 by" in words and "moments on different hosts compare within" in words


def test_collectives_refuse_offsets_that_are_less_exact_than_they_say() -> None:
    """It is said to be 30 ms off, within 1 ms; its own wall clock is right, and takes the place of that."""
    wrong = ClockOffset("node0", 1_000 * MS, 30 * MS, 1 * MS, 100)
    clocks = (report := simulated_hosts(0, (wrong,))).clocks
    assert clocks.bound_ns is None and clocks.hosts[1].bound_ns is None
    assert clocks.shift_error_ns is not None and abs(clocks.hosts[1].shift_ns) <= clocks.shift_error_ns < 30 * MS
    assert clocks_line(report).startswith(
        "what was measured of the clocks is wrong: ranks would leave collectives before their last member came; "
    )
    right = simulated_hosts(0, (replace(wrong, offset_ns=0),)).clocks
    assert right.unknown == "" and right.error_ns is not None


@pytest.mark.parametrize(("wrong_ms", "bound_ms"), [(5, 20), (-15, 20), (30, 1)])
def test_no_moment_of_a_corrected_clock_is_further_off_than_its_bound(wrong_ms: int, bound_ms: int) -> None:
    """The last offset is refused: then nothing bounds a single moment."""
    offset = ClockOffset("node0", 1_000 * MS, wrong_ms * MS, bound_ms * MS, 100)
    clock = clock_of(start_analysis(simulated_run(0, (offset,))))
    assert clock.shifts_ns["node1"]
    off_ns = abs(clock.of(2).moment(1_000 * MS) - clock.of(0).moment(1_000 * MS))
    found_ns = clock.of(2).bound_ns(1_000 * MS)
    assert (found_ns is None) == (wrong_ms > bound_ms)
    assert found_ns is None or off_ns <= found_ns
    assert clock.of(0).bound_ns(1_000 * MS) == 0


def test_clocks_that_collectives_say_nothing_certain_of_have_no_bound() -> None:
    """In these made-up collectives, the ranks of one host come 40 ms late in every step: nobody's clock is off."""
    job: dict[str, Any] = {"dp": 32, "layers": 4, "experts": 0, "steps": 4, "collectives": 6}
    report = report_of(**job, slow_rank=13, slow_module="blocks.1.mlp.up")
    assert [host.shift_ns for host in report.clocks.hosts] == [0] * 4
    assert report.clocks.error_ns is None
    assert clocks_line(report).endswith("moments on different hosts do not compare")


def test_hosts_without_any_collective_cannot_be_compared() -> None:
    nothing = np.zeros(0, np.int64)
    columns = ("group", "number", "op", "tag", "thread", "input_bytes", "output_bytes", "peer", "enqueued_ns")
    empty: dict[str, Any] = dict.fromkeys((*columns, "waited_from_ns", "waited_until_ns"), nothing)
    report = two_hosts([], [Collectives(7, "training", (), (), **empty)] * 2)
    assert (report.clocks.shift_error_ns, report.clocks.error_ns) == (None, None)


def message(op: str, peer: int, enqueued_ns: int, received_ns: int = 0) -> Collectives:
    """One end of one message; times of the rank's own monotonic clock."""
    one: dict[str, int] = {"group": 0, "number": 3, "op": 0, "tag": 0, "thread": 1, "input_bytes": 8, "output_bytes": 8}
    one |= {"peer": peer, "enqueued_ns": enqueued_ns, "waited_from_ns": enqueued_ns, "waited_until_ns": received_ns}
    columns: dict[str, Any] = {name: np.array([value]) for name, value in one.items()}
    return Collectives(7, "training", ("0",), (op,), **columns)


def test_an_offset_is_refused_if_a_message_would_arrive_before_it_was_sent() -> None:
    offset = ClockOffset("d0", 8_000 * MS, -7_000 * MS, 9_000, 100)  # at 8 s of node1, node0 has 1 s
    sent = message("send", 1, 1_000 * MS)
    in_time = message("recv", 0, 7_999 * MS, 8_000 * MS + 1)
    too_early = message("recv", 0, 7_998 * MS, 7_999 * MS)
    assert two_hosts([offset], [sent, in_time]).clocks.unknown == ""
    refused = two_hosts([offset], [sent, too_early])
    assert refused.clocks.unknown == (
        "what was measured of the clocks of node1 is wrong: messages would arrive before they were sent"
    )
    assert refused.clocks.hosts[1].bound_ns is None


def test_one_host_needs_no_words() -> None:
    report = analyse(run_of_shards([shard_of(rank_records(Job(dp=2), rank)) for rank in range(2)]))
    assert report.clocks.bound_ns == 0
    assert report.clocks.unknown == ""
    assert clocks_line(report) == ""
