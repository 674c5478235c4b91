"""Tests of an elastic job, whose number of nodes changes while it runs."""

from __future__ import annotations

import os
import signal
import socket

from support.scripts import TIMED, TIMED_OF_SEVERAL, NewWorkplace, Workplace, iterations, wait_for

from distprof.rank import procfs

#: Waits for a second node, then for its loss (a collective would fail), and then runs to its end.
ELASTIC = """
rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
def between(step):
    if step == 3 + int(world) and not os.path.exists("lost"):
        tell_pid(f"{rank}of{world}")
        while not os.path.exists("lost"):
            time.sleep(0.02)
        sys.exit(3)
infer(Net(), 7, between)
"""


def test_node_that_joins_and_leaves(new_workplace: NewWorkplace) -> None:
    """The other node restarts at each change.  Launcher and rank end at the same moment."""
    place = new_workplace()
    place.write("train.py", ELASTIC)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ("--rdzv-backend", "c10d", "--rdzv-id", "8", "--rdzv-endpoint", endpoint)
    quick = ("--rdzv-conf", "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=10")
    words = ("--nnodes", "1:2", "--nproc", 1, "--max-restarts", 2, "--monitor-interval", "0.1", *meeting, *quick)
    # torch's agents share the store of their rendezvous; a second rendezvous at a shared store hangs, also without
    # distprof.
    first = place.start_run(*words, "train.py", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    wait_for(lambda: waits(place, 0, 1))
    second = place.start_run(*words, "train.py", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    wait_for(lambda: waits(place, 0, 2) and waits(place, 1, 2))
    both = place.report()
    pids = [int((place.folder / f"pid{rank}of2").read_text()) for rank in range(2)]
    (lost,) = [pid for pid in pids if second.process.pid in procfs.ancestors(pid)]
    second.process.kill()
    os.kill(lost, signal.SIGKILL)
    assert second.wait().err == ""
    (place.folder / "lost").touch()
    ended = first.wait()
    assert (ended.code, ended.out) == (0, "")
    assert ended.last_line == "distprof: 1 of 1 ranks of this node recorded in runs/x  ->  distprof merge runs/x"
    lives = [(s.header.rank, s.header.generation, s.header.world_size, iterations(s)) for s in place.shards()]
    of_two = TIMED_OF_SEVERAL[:2]
    assert lives == [(0, 0, 1, TIMED[:2]), (0, 1, 2, of_two), (0, 2, 1, TIMED), (1, 0, 2, of_two)]
    assert ([row.steps for row in both.ranks], set(both.run.incomplete)) == ([2, 2], {0, 1})
    report = place.report()
    assert ([row.steps for row in report.ranks], report.run.incomplete) == ([3], {})
    assert {
        "rank 0 started more than once: generation 2, the newest with data, is reported",
        "rank 1 left out: of an earlier start of the job, with 2 ranks",
    } <= set(report.run.notes)


def waits(place: Workplace, rank: int, world: int) -> bool:
    return (place.folder / f"pid{rank}of{world}").exists()
