"""Tests of the daemon in real jobs: it sees all ranks, passes requests on, ends with the job, and nobody needs it."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon.processes import daemon_pids, listening_ports, resident_kilobytes
from support.scripts import NewWorkplace, Started, Workplace, wait_for

from distprof.heartbeat.node_files import newest_nodes
from distprof.heartbeat.page import open_page
from distprof.heartbeat.page_folder import NoPage
from distprof.heartbeat.slot_reader import read_slots
from distprof.records import Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard

#: Trains until it is told to stop; the ranks go in step, so that all end at the same iteration.
TRAIN = """
import torch.distributed as dist

def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    tell_pid(rank)
    model = nn.parallel.DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stop = torch.zeros(())
    while not stop:
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(0.1 if rank == 2 and os.path.exists("slow") else 0.01)
        stop.fill_(os.path.exists("stop"))
        dist.all_reduce(stop)
    # A group that ends with its model ends under the GIL, for which a thread of the group may wait (in torch).
    del model, optimizer
    dist.destroy_process_group()

main()
"""
ALONE = """
tell_pid(os.environ["RANK"])
train(Net(), 1_000_000, lambda step: (time.sleep(0.01), os.path.exists("stop") and sys.exit(int(step < 1))))
"""
_LIMIT_S = 300


def until(condition: Callable[[], Any], every: float = 0.05) -> Any:
    """Returns the first true value; looks seldom where a look starts a process."""
    end = time.monotonic() + _LIMIT_S
    while not (value := condition()):
        assert time.monotonic() < end, "it does not become true"
        time.sleep(every)
    return value


class Job:
    """A job that trains, of which the last rank may be killed."""

    def __init__(self, place: Workplace, ranks: int, script: str, started: Started) -> None:
        self.place, self.ranks, self.script, self.started = place, ranks, script, started
        self.run = place.folder / "runs" / "x"

    def pid(self, rank: int) -> int:
        path = self.place.folder / f"pid{rank}"
        wait_for(path.exists)
        return int(path.read_text())

    def top(self) -> dict[int, dict[str, Any]]:
        ended = self.place.distprof("top", self.run, "--once", "--json")
        assert ended.code == 0, ended.err
        return {rank["rank"]: rank for rank in json.loads(ended.out)["ranks"]}

    def page_numbers(self) -> dict[int, int]:
        """Returns the iteration of each rank, by the page itself."""
        nodes = newest_nodes(RunFolder(self.run))
        if not nodes:
            return {}
        try:
            page = open_page(nodes[0].token)
        except NoPage:
            return {}
        found = {rank.rank: rank.iteration for _, rank in read_slots(page)}
        page.close()
        return found

    def all_advance(self) -> None:
        until(lambda: len(self.page_numbers()) == self.ranks)
        before = self.page_numbers()
        until(lambda: all(number > before[rank] for rank, number in self.page_numbers().items()))

    def stop(self) -> None:
        (self.place.folder / "stop").touch()


@pytest.fixture(scope="module")
def job(new_workplace: NewWorkplace) -> Iterator[Job]:
    """A job of four ranks, which all tests of this module watch; the last one ends it."""
    place = new_workplace().forking()
    place.write("train.py", TRAIN)
    running = Job(place, 4, "train.py", place.start_run("--nproc", "4", "train.py"))
    yield running
    running.stop()
    if running.started.process.poll() is None:
        running.started.wait()


def test_top_sees_all_ranks_advance(job: Job) -> None:
    job.all_advance()
    first = job.top()
    assert sorted(first) == [0, 1, 2, 3]
    second = job.top()
    assert all(second[rank]["iteration"] > first[rank]["iteration"] for rank in first)
    assert {rank: found["pid"] for rank, found in first.items()} == {rank: job.pid(rank) for rank in first}
    assert {found["place"] for found in first.values()} == {f"dp {rank}" for rank in range(4)}
    assert all(found["iterations_per_s"] > 0 and found["resident_bytes"] > 1 << 20 for found in second.values())
    assert all(found["mark"] in ("", "slow") for found in second.values())  # the machine may be busy


def test_status_and_the_table(job: Job) -> None:
    job.all_advance()
    status = job.place.distprof("status", job.run)
    assert status.code == 0 and "4 of 4 ranks run on" in status.out
    table = job.place.distprof("top", job.run, "--sort", "lag")  # not on a terminal: once
    assert table.code == 0 and len(table.out.splitlines()) == 6, table.err


def test_windows_on_demand_begin_at_one_iteration_on_all_ranks(job: Job) -> None:
    job.all_advance()
    for window, options in ((1, ["--timed", "3"]), (2, ["--timed", "2", "--no-count"])):
        asked = job.place.distprof("trigger", job.run, "--wait", str(_LIMIT_S), *options)
        assert asked.code == 0 and f"4 of 4 ranks record window {window} from iteration" in asked.err
        until(lambda window=window: _recorded(job.run, window) == {0: True, 1: True, 2: True, 3: True})  # type: ignore[misc]
    some = job.place.distprof("trigger", job.run, "--wait", str(_LIMIT_S), "--timed", "2", "--ranks", "1,3")
    assert some.code == 0 and "2 of 2 ranks record window 3" in some.err
    until(lambda: _recorded(job.run, 3) == {1: True, 3: True})
    nobody = job.place.distprof("trigger", job.run, "--ranks", "9")
    assert nobody.code != 0 and "rank 9 does not run" in nobody.err


def test_traces_of_torch_profiler_on_demand(job: Job) -> None:
    job.all_advance()
    asked = job.place.distprof("trigger", job.run, "--wait", str(_LIMIT_S), "--traced", "2", "--ranks", "1,2")
    assert asked.code == 0 and "2 of 2 ranks record window 4" in asked.err and "merge" not in asked.err
    paths = [job.run / "traces" / "window4" / f"rank{rank}.json.gz" for rank in (1, 2)]
    until(lambda: all(path.exists() for path in paths))
    traces = [json.loads(gzip.decompress(path.read_bytes())) for path in paths]
    assert [(one["distributedInfo"]["rank"], one["distributedInfo"]["world_size"]) for one in traces] == [
        (1, 4),
        (2, 4),
    ]
    steps = [{one["name"] for one in trace["traceEvents"] if "ProfilerStep#" in one["name"]} for trace in traces]
    assert len(steps[0]) == 2 and steps[0] == steps[1]
    assert sorted(path.name for path in (job.run / "traces" / "window4").iterdir()) == [path.name for path in paths]


def _recorded(run: Path, window: int) -> dict[int, bool]:
    """Returns, of each rank that recorded a window, whether it is whole and began where those of the others did."""
    starts, found = set(), {}
    for path in RunFolder(run).shard_files():
        shard = read_shard(path)
        timed = [step.iteration for step in shard.records if isinstance(step, Step) and step.window == window]
        if timed:
            starts.add(timed[0])
            found[shard.header.rank] = len(timed) >= {1: 4, 2: 2, 3: 2}[window]  # with the one that settles
    return {rank: whole and len(starts) == 1 for rank, whole in found.items()}


def test_a_slow_rank_is_named_with_a_line_in_the_log(job: Job) -> None:
    """The iterations of all ranks take equally long: rank 2 is known by the collectives in which the others wait."""
    job.all_advance()
    assert "rank 2 has been the slowest" not in job.place.distprof("status", job.run).out
    (job.place.folder / "slow").touch()
    until(lambda: "Rank 2 has been the slowest in" in job.place.distprof("status", job.run).out, every=1.0)
    shown = job.top()
    assert shown[2]["mark"] == "slow"
    assert shown[2]["slowest_in"] > shown[2]["sampled"] / 2 and shown[2]["wait_share"] < shown[1]["wait_share"]
    (job.place.folder / "slow").unlink()
    job.all_advance()


def test_the_daemon_is_small_and_nobody_waits_for_it(job: Job) -> None:
    job.all_advance()
    (pid,) = until(lambda: daemon_pids(job.run))
    assert resident_kilobytes(pid) < 60 * 1024
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
    assert listening_ports(pid) == []
    assert os.getsid(pid) not in {os.getsid(rank) for rank in (job.pid(0), job.started.process.pid)}
    assert {str(Path(f"/proc/{pid}/fd/{stream}").readlink()) for stream in range(3)} == {"/dev/null"}
    os.kill(pid, signal.SIGSTOP)
    job.all_advance()
    os.kill(pid, signal.SIGKILL)
    job.all_advance()


def test_z_the_job_ends_as_without_it_and_leaves_nothing(job: Job) -> None:
    """The daemon is dead: the launcher removes the page."""
    token = newest_nodes(RunFolder(job.run))[0].token
    job.stop()
    ended = job.started.wait()
    assert "distprof: rank 2 has been the slowest in " in ended.err
    assert (ended.code, ended.last_line) == (0, "distprof: 4 of 4 ranks recorded in runs/x  ->  distprof merge runs/x")
    with pytest.raises(NoPage):
        open_page(token)
    assert daemon_pids(job.run) == []
    merged = job.place.distprof("merge", job.run, "--window", "1", "--no-plots")
    assert merged.code == 0 and "window 1" in merged.out


def test_a_killed_rank_is_still_read_and_the_daemon_ends_with_the_job(new_workplace: NewWorkplace) -> None:
    """The ranks are started by the command itself: the first one starts the daemon, which is the child of nobody."""
    place = new_workplace().forking()
    place.write("train.py", ALONE)
    place.write("both.sh", "for r in 0 1; do RANK=$r LOCAL_RANK=$r WORLD_SIZE=2 python train.py & done; wait\n")
    started = place.start_exec("sh", "both.sh")
    job = Job(place, 2, "train.py", started)
    job.all_advance()
    (pid,) = until(lambda: daemon_pids(job.run))
    os.kill(job.pid(1), signal.SIGKILL)
    until(lambda: job.top()[1]["state"] == "dead", every=1.0)
    last = job.top()[1]
    assert last["iteration"] > 0 and last["mark"] == "dead" and last["lag"] is None
    assert "Rank 1 died" in place.distprof("status", job.run).out
    token = newest_nodes(RunFolder(job.run))[0].token
    job.stop()
    assert started.wait().code == 0
    until(lambda: not Path(f"/proc/{pid}").exists())
    with pytest.raises(NoPage):
        open_page(token)
    assert "ended" in place.distprof("status", job.run).out  # the last state stays in the run's folder


def test_without_a_daemon(new_workplace: NewWorkplace) -> None:
    place = new_workplace().forking()
    place.write("train.py", "train(Net(), 8)")
    ended = place.run("--nproc", "1", "--no-daemon", "train.py")
    assert ended.code == 0 and not (place.folder / "runs" / "x" / "nodes").exists()
    asked = place.distprof("top", "runs/x")
    assert asked.code != 0 and "was the job started with --no-daemon?" in asked.err
    off = place.run("--nproc", "1", "train.py", name="y", DISTPROF_DAEMON="0")
    assert off.code == 0 and not (place.folder / "runs" / "y" / "nodes").exists()


def test_where_no_page_can_be_made_the_job_runs_and_it_is_said_once(new_workplace: NewWorkplace) -> None:
    place = new_workplace().forking()
    place.write("train.py", "train(Net(), 8)")
    (place.folder / "runs" / "x").mkdir(parents=True)
    (place.folder / "runs" / "x" / "nodes").write_text("in the way", encoding="utf-8")
    ended = place.exec("env", "RANK=0", "WORLD_SIZE=1", place.python, "train.py", SLURM_STEP_NUM_TASKS="2")
    assert ended.code == 0 and ended.err.count("have no heartbeat") == 1, ended.err
