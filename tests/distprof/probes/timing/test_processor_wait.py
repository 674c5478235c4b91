"""The wait for a processor: what Linux counts, and nothing where it counts nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import torch
from support.recording import record
from torch import nn

from distprof.clock import SystemClock
from distprof.probes.timing import processor_wait
from distprof.probes.timing.processor_wait import ProcessorWait
from distprof.records import Step

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts it")


def train() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(4):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()


@pytest.fixture
def wait() -> Iterator[ProcessorWait]:
    wait = ProcessorWait()
    wait.open()
    yield wait
    wait.close()


def spin_beside_others(wait: ProcessorWait) -> None:
    """Spins on one processor beside processes that do the same, until the kernel has made this thread wait."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    parent = os.getpid()
    rival = os.fork()
    if not rival:
        while os.getppid() == parent:
            pass
        os._exit(0)
    try:
        while (wait.waited_ns() or 0) < 1_000_000:
            sum(range(1000))
    finally:
        os.kill(rival, 9)
        os.waitpid(rival, 0)
        os.sched_setaffinity(0, allowed)


def test_a_wait_beside_another_process_is_seen(wait: ProcessorWait) -> None:
    wait.begin()
    if wait.waited_ns() is None:
        pytest.skip("this kernel does not count waits")
    spin_beside_others(wait)
    waited = wait.waited_ns()
    assert waited is not None and waited >= 1_000_000


def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> Path:
    """Replaces the kernel's file; None: there is none."""
    file = tmp_path / "schedstat"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(processor_wait, "_FILE", str(file))
    return file


@pytest.mark.parametrize("content", [None, b"", b"1", b"a b c"])
def test_where_nothing_is_counted_the_wait_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    counter(tmp_path, monkeypatch, content)
    wait = ProcessorWait()
    wait.open()
    wait.begin()
    assert wait.waited_ns() is None
    wait.close()


def test_the_wait_is_a_difference_of_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = counter(tmp_path, monkeypatch, b"9 400 3\n")
    wait = ProcessorWait()
    wait.open()
    wait.begin()
    file.write_bytes(b"9 1000 3\n")
    assert wait.waited_ns() == 600
    file.write_bytes(b"9 20 3\n")
    assert wait.waited_ns() is None  # a counter that goes back
    wait.close()


def test_another_thread_has_another_counter(wait: ProcessorWait) -> None:
    found: list[int | None] = []

    def elsewhere() -> None:
        wait.begin()
        found.append(wait.waited_ns())

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [None]


def test_a_descriptor_that_the_script_took_over_stays_open(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    wait = ProcessorWait()
    wait.open()
    (link,) = set(Path("/proc/self/fd").iterdir()) - before  # iterdir's own descriptor has the same number each time
    fd = int(link.name)
    assert fd >= 64
    (tmp_path / "users").write_bytes(b"1 2 3")
    users = os.open(tmp_path / "users", os.O_RDONLY)
    os.dup2(users, fd)
    wait.close()
    assert os.read(fd, 5) == b"1 2 3"
    os.close(fd)
    os.close(users)


def test_steps_have_their_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessorWait, "waited_ns", lambda self: 1_000)
    steps = record(tmp_path / "seen", train, warmup=1, timed=2, clock=SystemClock()).of(Step)
    assert [(step.processor_wait_ns, step.processor_wait_seen) for step in steps] == [(1_000, True)] * 2
    monkeypatch.setattr(ProcessorWait, "waited_ns", lambda self: None)
    steps = record(tmp_path / "unseen", train, warmup=1, timed=2, clock=SystemClock()).of(Step)
    assert [(step.processor_wait_ns, step.processor_wait_seen) for step in steps] == [(0, False)] * 2
