"""Jobs on two hosts whose clocks differ, and run at different speeds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hosts.two_hosts import HostClock, Network, free_port, run_on_two_hosts, two_namespaces

from distprof.merge.analyse import analyse
from distprof.merge.load.run import LoadedRun, load_run
from distprof.records import ClockOffset
from distprof.shard.reader import Shard, read_shard

SCRIPT = """
import os, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(0)
model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(40):
    optimizer.zero_grad()
    model(torch.randn(8, 16)).sum().backward()
    optimizer.step()
    time.sleep(0.03)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def namespaces() -> Iterator[Network]:
    with two_namespaces() as network:
        if network is None:
            pytest.skip("no network namespaces can be made here")
        yield network


def record(
    network: Network, clocks: tuple[HostClock, HostClock], folder: Path, env: dict[str, str], nproc: int
) -> list[Shard]:
    """Returns the shards of a job on two hosts, of which nothing but distprof's own lines is on stderr.

    On a busy machine torch's launcher of one host may end, with its store, while that of the other still reads from it,
    and says so; the job is then run once more.
    """
    (folder / "train.py").write_text(SCRIPT)
    words = ("--nproc-per-node", str(nproc), "--name", "x", "--warmup", "5", "--timed", "10", "train.py")
    for last in (False, True):
        ended = run_on_two_hosts(network, clocks, words, cwd=folder, env=env, port=free_port())
        assert [process.returncode for process in ended] == [0, 0], ended
        told = [line for process in ended for line in foreign_lines(process.stderr)]
        if last or not any("recvValueWithTimeout failed" in line for line in told):
            assert told == []
            break
        shutil.rmtree(folder / "runs")
    return [read_shard(path) for path in sorted((folder / "runs" / "x" / "shards").iterdir())]


def foreign_lines(stderr: str) -> list[str]:
    """Returns the lines that are not distprof's.

    A namespace cannot look up names of hosts: torch says so for each connection, also without distprof.
    """
    told = [line for line in stderr.splitlines() if "hostname of the client socket" not in line]
    return [line for line in told if not line.startswith("distprof: ")]


def offsets(shards: list[Shard], domain: str) -> list[ClockOffset]:
    found = [shard for shard in shards if shard.header.clock_domain == domain]
    assert found
    return [record for shard in found for record in shard.records if isinstance(record, ClockOffset)]


def errors_beyond_bound(measured: list[ClockOffset], own: HostClock, reference: HostClock) -> list[int]:
    def error(offset: ClockOffset) -> int:
        shown = reference.clock.of(own.clock.truth(offset.mono_ns))
        return abs(shown - offset.mono_ns - offset.offset_ns)

    return [error(offset) for offset in measured if error(offset) > offset.bound_ns + 2]


@pytest.mark.slow
def test_two_namespaces_with_a_shift_and_a_drift(
    namespaces: Network, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    clocks = HostClock("host-a"), HostClock("host-b", shift_ns=1_230_000_000, drift=100e-6)
    check(record(namespaces, clocks, tmp_path, clean_env, 2), clocks, load_run(tmp_path / "runs" / "x"))


@pytest.mark.slow
def test_two_hosts_on_loopback(tmp_path: Path, clean_env: dict[str, str]) -> None:
    clocks = HostClock("host-a", shift_ns=-2_000_000_000, drift=-80e-6), HostClock("host-b")
    check(record(Network("127.0.0.1"), clocks, tmp_path, clean_env, 1), clocks, load_run(tmp_path / "runs" / "x"))


def check(shards: list[Shard], clocks: tuple[HostClock, HostClock], run: LoadedRun) -> None:
    """Every measured offset lies within its bound, and the report has the clocks of both hosts."""
    both = offsets(shards, "host-a"), offsets(shards, "host-b")
    own = 0 if both[0] else 1  # the first host that came is the reference
    assert not both[1 - own]
    assert both[own]
    assert errors_beyond_bound(both[own], clocks[own], clocks[1 - own]) == []
    report, half = analyse(run), len(shards) // 2
    ranks = tuple(range(half)), tuple(range(half, len(shards)))
    assert [host.ranks for host in report.clocks.hosts] == [ranks[1 - own], ranks[own]]
    assert report.run.missing_ranks == ()
    ahead_ns = report.clocks.hosts[1].ahead_ns
    assert ahead_ns is not None
    assert abs(ahead_ns) > 1_000_000_000
    assert report.clocks.bound_ns == report.clocks.hosts[1].bound_ns
