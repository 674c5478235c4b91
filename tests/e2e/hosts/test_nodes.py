"""Jobs of two nodes that share nothing but a network: each has a network namespace and a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.forking.server import forking_python
from support.hosts.two_hosts import HostClock, Network, free_port, two_namespaces
from support.scripts import PRELUDE, Started, Workplace, wait_for

from distprof.heartbeat.hang_file import OUTSIDE, read_hangs
from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run
from distprof.records import Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard

#: Trains until its node is told to stop; both stop at the same iteration.  A node can be told to load no data.
TRAIN = """
import torch.distributed as dist

def load_batch():
    while os.path.exists("asleep"):
        time.sleep(0.1)
    return torch.ones(2, 4)

def main():
    dist.init_process_group("gloo")
    tell_pid(os.environ["RANK"])
    model = nn.parallel.DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stop = torch.zeros(())
    while not stop:
        model(load_batch()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(0.1)
        stop.fill_(os.path.exists("stop"))
        dist.all_reduce(stop)
    del model, optimizer
    dist.destroy_process_group()

main()
"""
SHIFT_NS = 1_230_000_000
_STALL_S = 5
DISTPROF = str(Path(sys.executable).parent / "distprof")


@dataclass(frozen=True)
class Hosts:
    """Two workplaces, each on a host of its own; each Python on a host is a fork that has imported torch."""

    network: Network
    places: tuple[Workplace, Workplace]

    def start(self, backend: str, name: str, **env: str) -> list[Started]:
        started = []
        port, address = free_port(), self.network.address
        for node, place in enumerate(self.places):
            place.write("train.py", TRAIN, PRELUDE)
            if backend == "static":
                meeting: tuple[object, ...] = ("--master-addr", address, "--master-port", port, "--node-rank", node)
            else:
                own = ("--local-addr", f"10.231.77.{node + 1}", "--rdzv-conf", f"is_host={int(not node)}")
                meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{address}:{port}", *own)
            nodes = ("--nnodes", 2, "--nproc", 1, "--monitor-interval", "0.1", *meeting)
            words = (*nodes, "--stall", _STALL_S, "--merge", "train.py")
            started.append(place.start_run(*words, name=name, timed=3, DISTPROF_PLOTS="0", **env))
        return started

    def run(self, node: int, name: str) -> RunFolder:
        return self.places[node].run_dir(name)

    def distprof(self, node: int, *words: object) -> tuple[int, str, str]:
        """Runs a command on a host."""
        place = self.places[node]
        ended = place.start(place.launcher, DISTPROF, *words).wait()
        return ended.code, ended.out, ended.err

    def top(self, node: int, name: str) -> list[dict[str, Any]]:
        code, out, _ = self.distprof(node, "top", f"runs/{name}", "--once", "--json")
        return [] if code else json.loads(out)["ranks"]

    def timed(self, node: int, name: str, window: int) -> dict[int, list[int]]:
        """Returns the timed iterations of each rank in the shards that lie on a host."""
        found = {}
        for path in self.run(node, name).shard_files():
            shard = read_shard(path)
            steps = [record for record in shard.records if isinstance(record, Step) and record.window == window]
            found[shard.header.rank] = [step.iteration for step in steps]
        return found


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> Iterator[Hosts]:
    with two_namespaces() as network:
        if network is None:
            pytest.skip("no network namespaces can be made here")
        places, python = [], forking_python(clean_env)
        for node, namespace in enumerate(network.namespaces):
            clock = HostClock(f"host-{node}", shift_ns=node * SHIFT_NS)
            env = {**clock.environment(clean_env, namespace), **network.variables}
            places.append(Workplace(tmp_path_factory.mktemp(f"host{node}"), env, launcher=python, python=python))
        yield Hosts(network, (places[0], places[1]))


def stop(hosts: Hosts) -> None:
    for place in hosts.places:
        (place.folder / "stop").touch()


@pytest.fixture(autouse=True)
def fresh(hosts: Hosts) -> None:
    for place in hosts.places:
        for path in [*place.folder.glob("pid*"), *place.folder.glob("stop")]:
            path.unlink()


def stands_still_and_goes_on(hosts: Hosts, name: str) -> None:
    """The rank of the second node keeps that of the first one waiting; the daemon of the first one says so."""
    asleep = hosts.places[1].folder / "asleep"
    asleep.touch()
    wait_for(lambda: any(1 in hang.ranks for hang in read_hangs(hosts.run(0, name))), every=0.3)
    asleep.unlink()
    hang = next(hang for hang in read_hangs(hosts.run(0, name)) if 1 in hang.ranks)
    assert (hang.kind, hang.ranks, hang.waiting) == (OUTSIDE, (1,), (0,)), hang
    assert "rank 1 in load_batch (train.py:" in hang.cause and "rank 0 in all_reduce" in hang.where, hang
    assert not read_hangs(hosts.run(1, name)), "the daemon of the lowest rank judges"
    wait_for(lambda: all(hang.moved_wall_ns for hang in read_hangs(hosts.run(0, name))), every=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_two_nodes_without_a_shared_folder_make_one_report(hosts: Hosts, backend: str, tmp_path: Path) -> None:
    out = {"DISTPROF_OUT": f"file://{tmp_path}/there"} if backend == "c10d" else {}  # once is enough
    started = hosts.start(backend, backend, **out)
    for node, place in enumerate(hosts.places):
        wait_for(lambda place=place: any(place.folder.glob("pid*")), every=0.3)  # type: ignore[misc]
        wait_for(lambda node=node: len(hosts.top(node, backend)) == 2, every=1.0)  # type: ignore[misc]
    code, _, err = hosts.distprof(1, "trigger", f"runs/{backend}", "--timed", "3", "--wait", "300")
    assert code == 0 and "2 of 2 ranks record window 1" in err
    wait_for(lambda: sorted(map(len, hosts.timed(0, backend, 1).values())) == [4, 4], every=0.3)  # one settles
    first, second = hosts.timed(0, backend, 1).values()
    assert first == second, "the shards are here while the job runs, and all ranks record the same iterations"
    if backend == "static":  # once is enough
        stands_still_and_goes_on(hosts, backend)
    stop(hosts)
    ended = [one.wait() for one in started]
    assert [one.code for one in ended] == [0, 0], ended
    assert "2 of 2 ranks recorded" in ended[0].err and "runs" in ended[0].err
    assert "1 of 1 ranks of this node recorded" in ended[1].last_line and "and sent to " in ended[1].last_line
    run = hosts.run(0, backend)
    assert (run.report / "summary.json").exists() and not hosts.run(1, backend).report.exists()
    report = analyse(load_run(run.path))
    assert report.run.ranks == (0, 1) and report.run.missing_ranks == ()
    ahead_ns, bound_ns = report.clocks.hosts[1].ahead_ns, report.clocks.hosts[1].bound_ns
    assert ahead_ns is not None and bound_ns is not None
    assert abs(abs(ahead_ns) - SHIFT_NS) <= bound_ns
    if out:
        there = tmp_path / "there" / backend
        assert ended[0].last_line == f"distprof: all of it is copied to {out['DISTPROF_OUT']}/{backend}"
        assert [data.rank for data in load_run(there).ranks] == [0, 1] and (there / "report" / "summary.json").exists()


@pytest.mark.slow
def test_a_node_that_dies_has_left_what_it_sent(hosts: Hosts) -> None:
    started = hosts.start("static", "dies")
    wait_for(lambda: set(hosts.timed(0, "dies", 0)) == {0, 1}, every=0.3)
    rank = int((hosts.places[1].folder / "pid1").read_text())
    os.kill(started[1].process.pid, signal.SIGKILL)
    os.kill(rank, signal.SIGKILL)
    started[1].process.communicate()
    ended = started[0].wait()
    assert ended.code != 0
    assert "not all shards have come from " in ended.err and "what it sent earlier is here" in ended.err
    report = analyse(load_run(hosts.run(0, "dies").path))
    assert report.run.ranks == (0, 1) and report.run.incomplete == {}
