"""Tests of successive jobs of several nodes that share a name, and so the run folder."""

from __future__ import annotations

import socket
from pathlib import Path

from support.scripts import Ended, NewWorkplace, Workplace

CASE = Path(__file__).parent.parent / "cases" / "stale_shard_of_earlier_job.py"
#: torch's agents share the store of their rendezvous; a second rendezvous at it hangs, also without distprof.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def test_earlier_job_of_the_same_rendezvous_id(new_workplace: NewWorkplace) -> None:
    """Its rank 1 was slow; rank 1 of this job ends before its first model.  Each job has two nodes with one rank."""
    place = new_workplace().forking()
    both(place, "64", "0.02", "lives")
    before = place.report("job-demo")
    assert before.run.ranks == (0, 1) and not any("earlier" in note for note in before.run.notes)
    lines = [ended.last_line for ended in both(place, "32", "0", "dies")]
    assert sum("1 of 1 ranks of this node recorded" in line for line in lines) == 1
    assert sum("0 of 1 ranks of this node recorded" in line for line in lines) == 1
    report = place.report("job-demo")
    assert (report.run.ranks, report.run.missing_ranks) == ((0,), (1,))
    assert report.ranks[0].params == 2 * (32 * 32 + 32)
    names = "rank00000.g0.msgpack, rank00001.g0.msgpack"
    reason = "left out, of an earlier job of the same name, which had ended when this one was launched"
    assert f"{names}: {reason}" in report.run.notes


def both(place: Workplace, *arguments: str) -> list[Ended]:
    """Runs both nodes of the job at the same time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free.getsockname()[1]}")
    window = ("--warmup", "2", "--timed", "3", "--out", "runs")
    nodes = ("--nnodes", "2", "--nproc", "1", *meeting, "--rdzv-id", "demo")
    started = [place.start_distprof("run", *window, *nodes, CASE, *arguments, **OWN_STORE) for _ in range(2)]
    return [one.wait() for one in started]
