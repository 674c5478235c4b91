"""Tests of which process owns a rank, with real processes of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.recording import recorder
from torch import nn

from distprof.rank import ownership, procfs
from distprof.rank.ownership import claim_strength, is_rank_taken, minimum_claim_strength, was_claimed_since
from distprof.records import ALONE, CLAIMS, ENVIRONMENT, GROUP, OTHER_GROUP, Header
from distprof.run_folder import RunFolder, create
from distprof.shard.writer import FileSink, MemorySink, ShardWriter

HOUR_NS = 3600 * 10**9


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create(tmp_path, "x", shared=False)


@pytest.fixture
def child() -> Iterator[int]:
    """Returns the pid of a running child process, a Python."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.communicate()


@pytest.fixture
def dead() -> int:
    """Returns the pid of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def claim(run: RunFolder, pid: int, claim: str = GROUP, *, rank: int = 0, host: str = "", ago_ns: int = 0) -> None:
    """Writes the begin of a shard of rank 0, as such a process does."""
    generation = len(run.shards_of(rank))
    writer = ShardWriter(FileSink(run.shard_path(rank, generation)))
    wall_ns = time.time_ns() - ago_ns
    host = host or socket.gethostname()
    writer.write(Header("x", rank, 2, claim=claim, generation=generation, host=host, pid=pid, wall_ns=wall_ns))
    writer.close()


def test_nobody_speaks_for_a_rank_at_first(run: RunFolder, dead: int) -> None:
    assert not is_rank_taken(run, 0, ALONE)
    claim(run, dead, rank=1)
    assert not is_rank_taken(run, 0, ALONE)


def test_rank_owns_its_child_processes(run: RunFolder, child: int) -> None:
    """The order does not matter: first the child has a claim, then, as seen by the child, its parent."""
    claim(run, child)
    assert not is_rank_taken(run, 0, GROUP)
    (shard,) = run.shards_of(0)
    shard.unlink()
    claim(run, os.getppid())
    assert is_rank_taken(run, 0, GROUP)


def test_a_stronger_claim_holds_for_good_a_weaker_one_never(run: RunFolder, dead: int) -> None:
    claim(run, dead, ENVIRONMENT)
    assert is_rank_taken(run, 0, ALONE) and is_rank_taken(run, 0, OTHER_GROUP)
    assert not is_rank_taken(run, 0, GROUP)
    claim(run, os.getppid(), ENVIRONMENT)
    assert not is_rank_taken(run, 0, GROUP)


def test_claims_of_an_earlier_job_are_none(run: RunFolder, dead: int) -> None:
    claim(run, dead, ago_ns=HOUR_NS)
    assert is_rank_taken(run, 0, ENVIRONMENT)
    assert not is_rank_taken(run, 0, ENVIRONMENT, time.time_ns() - HOUR_NS // 2)
    claim(run, os.getppid())
    assert is_rank_taken(run, 0, ENVIRONMENT, time.time_ns())  # it is running


def test_a_rank_that_was_started_again_speaks_for_itself(run: RunFolder, dead: int) -> None:
    claim(run, dead)
    assert not is_rank_taken(run, 0, GROUP)


def test_reused_process_id_is_another_process(run: RunFolder, child: int) -> None:
    claim(run, os.getppid(), ago_ns=HOUR_NS * 24 * 365 * 30)
    assert not is_rank_taken(run, 0, GROUP)


def test_of_other_machines_nothing_is_known(run: RunFolder) -> None:
    claim(run, os.getppid(), host="elsewhere")
    assert not is_rank_taken(run, 0, GROUP)


def test_a_process_does_not_stand_in_its_own_way(run: RunFolder) -> None:
    claim(run, os.getpid())
    assert not is_rank_taken(run, 0, ALONE)


def test_message_if_another_process_is_the_rank(run: RunFolder, dead: int, capsys: pytest.CaptureFixture[str]) -> None:
    claim(run, dead)
    recording = recorder(run.path)
    recording.rank.asked = True
    recording.arm()
    nn.Linear(1, 1)(torch.ones(1))
    nn.Linear(1, 1)(torch.ones(1))
    recording.finish()
    told = f"distprof: this process is not recorded: another one is rank 0 of {run.path}\n"
    assert capsys.readouterr().err == told
    assert len(run.shards_of(0)) == 1


def test_a_shard_that_never_gets_a_header_is_no_claim(run: RunFolder) -> None:
    run.shard_path(0, 0).touch()
    assert not is_rank_taken(run, 0, ALONE)


def test_a_header_that_is_being_written_is_waited_for(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_BEING_WRITTEN_S", 60)
    run.shard_path(0, 0).touch()
    with claimed_soon(run) as began:
        assert is_rank_taken(run, 0, ENVIRONMENT)
        assert time.monotonic() - began > 0.03


@contextmanager
def claimed_soon(run: RunFolder) -> Iterator[float]:
    """Another process creates its shard, and writes the header some time later."""
    sink = MemorySink()
    ShardWriter(sink).write(Header("x", 0, 2, host=socket.gethostname(), pid=os.getppid(), wall_ns=time.time_ns()))
    writing = threading.Timer(0.03, lambda: run.shard_path(0, 0).write_bytes(sink.data))
    began = time.monotonic()
    writing.start()
    yield began
    writing.join()


#: Ends with 1 if another process owns rank 0.
IS_SPOKEN_FOR = """
import sys
from pathlib import Path
from distprof.rank.ownership import is_rank_taken
from distprof.run_folder import RunFolder
sys.exit(is_rank_taken(RunFolder(Path(sys.argv[1])), 0, sys.argv[2]))
"""


@pytest.mark.parametrize("theirs", [ALONE, ENVIRONMENT])
def test_of_processes_that_run_by_themselves_each_is_one(run: RunFolder, child: int, theirs: str) -> None:
    """As seen by a child of this process; of processes with a rank in the environment, the first one owns it."""
    claim(run, child, theirs)
    asked = subprocess.run([sys.executable, "-c", IS_SPOKEN_FOR, run.path, theirs], check=False)
    assert asked.returncode == (theirs != ALONE)


def test_what_a_process_that_runs_by_itself_starts_does_not(run: RunFolder) -> None:
    claim(run, os.getppid(), ALONE)
    assert is_rank_taken(run, 0, ALONE)


#: Claims rank 0 of each run in a folder, at the times given by their names; prints those that it got.
CLAIMS_ALL = """
import os, socket, sys, time
from pathlib import Path
from distprof.rank import ownership
from distprof.rank.ownership import is_rank_taken
from distprof.recorder.shard_output import open_shard
from distprof.records import Header
from distprof.run_folder import RunFolder
ownership._BEING_WRITTEN_S = 60  # of three on two busy cores, one may be kept from its header for long
print("ready", flush=True)
start = float(input())
for number, path in enumerate(sorted(Path(sys.argv[1]).iterdir())):
    while time.time() < start + number * 0.01:
        pass
    run, now = RunFolder(path), time.time_ns()
    header = Header("x", 0, 2, host=socket.gethostname(), pid=os.getpid(), wall_ns=now)
    if open_shard(run, header, lambda: is_rank_taken(run, 0, header.claim)):
        print(path.name)
print("done", flush=True)
input()
"""


def test_simultaneous_claims_have_one_winner(tmp_path: Path) -> None:
    names = [create(tmp_path, f"{number:02}", shared=False).path.name for number in range(50)]
    command = [sys.executable, "-c", CLAIMS_ALL, str(tmp_path)]
    with contextlib.ExitStack() as stack:
        rivals = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        for rival in rivals:
            assert rival.stdout is not None and rival.stdout.readline() == "ready\n"
        start = time.time() + 0.05
        for rival in rivals:
            assert rival.stdin is not None
            rival.stdin.write(f"{start}\n")
            rival.stdin.flush()
        claimed = [list(iter(rival.stdout.readline, "done\n")) for rival in rivals if rival.stdout]
        for rival in rivals:
            rival.communicate("\n")
    assert sorted(name.strip() for names in claimed for name in names) == names
    assert [len(RunFolder(tmp_path / name).shards_of(0)) for name in names] == [1] * 50


def test_what_a_rank_only_starts_has_claimed_meanwhile(run: RunFolder, dead: int) -> None:
    claim(run, dead, ago_ns=HOUR_NS * 24)
    claim(run, os.getpid())
    assert not was_claimed_since(run, 0)
    claim(run, dead)
    assert was_claimed_since(run, 0)


def test_claims_of_other_processes_are_weaker() -> None:
    headers = {claim: Header("x", 0, 1, claim=claim) for claim in CLAIMS}
    assert [claim_strength(claim) for claim in CLAIMS] == sorted({claim_strength(claim) for claim in CLAIMS})
    assert minimum_claim_strength(headers.values()) == claim_strength(ENVIRONMENT)
    assert minimum_claim_strength([headers[ALONE]]) == claim_strength(ALONE)
    assert minimum_claim_strength([]) == 0
    assert claim_strength("of a newer version") == claim_strength(ENVIRONMENT)


def test_what_is_known_of_processes(child: int, dead: int) -> None:
    assert os.getpid() in procfs.ancestors(child)
    assert list(procfs.ancestors(dead)) == []
    assert procfs.environment(dead) is None
    assert (procfs.is_python(child), procfs.is_python(dead)) == (True, False)
    started = procfs.started_wall_ns(child)
    assert started is not None and abs(time.time_ns() - started) < 60 * 10**9
    assert procfs.started_wall_ns(dead) is None


def test_zombie_is_not_running() -> None:
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert procfs.started_wall_ns(zombie.pid) is None


def test_the_environment_is_what_a_process_was_started_with() -> None:
    variables = {"RANK": "3", "TEXT": "a=b\nc"}
    with subprocess.Popen(["/bin/cat"], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None and cat.stdout is not None
        cat.stdin.write(b"it runs\n")
        cat.stdin.flush()
        cat.stdout.readline()
        assert procfs.environment(cat.pid) == variables
        cat.communicate()
