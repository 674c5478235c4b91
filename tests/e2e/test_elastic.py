"""Tests of an elastic job, whose number of nodes changes while it runs."""

from __future__ import annotations

import os
import signal
import socket

from support.scripts import TIMED, TIMED_OF_SEVERAL, NewWorkplace, Workplace, iterations, wait_for

#: Waits for a second node, then for its loss (a collective would fail), and then runs to its end.
ELASTIC = """
rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
def between(step):
    if step == 3 + int(world) and not os.path.exists("lost"):
        tell_pid(f"{rank}of{world}-{os.environ['NODE']}")
        while not os.path.exists("lost"):
            time.sleep(0.02)
        sys.exit(3)
infer(Net(), 7, between)
"""


def test_node_that_joins_and_leaves(new_workplace: NewWorkplace) -> None:
    """The other node restarts at each change.  Launcher and rank end at the same moment."""
    place = new_workplace().forking()
    place.write("train.py", ELASTIC)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ("--rdzv-backend", "c10d", "--rdzv-id", "8", "--rdzv-endpoint", endpoint)
    quick = ("--rdzv-conf", "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=10")
    words = ("--nnodes", "1:2", "--nproc", 1, "--max-restarts", 2, "--monitor-interval", "0.1", *meeting, *quick)
    # torch's agents share the store of their rendezvous; a second rendezvous at a shared store hangs, also without
    # distprof.
    first = place.start_run(*words, "train.py", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1", NODE="first")
    wait_for(lambda: waiting(place, 1) == {"first"})
    second = place.start_run(*words, "train.py", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1", NODE="second")
    wait_for(lambda: waiting(place, 2) == {"first", "second"})
    both = place.report()
    (lost,) = place.folder.glob("pid?of2-second")
    second.process.kill()
    os.kill(int(lost.read_text()), signal.SIGKILL)
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


def waiting(place: Workplace, world: int) -> set[str]:
    """Returns the nodes whose rank waits, in a job of so many ranks."""
    return {path.name.partition("-")[2] for path in place.folder.glob(f"pid?of{world}-*")}
