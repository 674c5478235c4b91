"""The wait for a processor: what Linux counts, and nothing where it counts nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from support.recording import record
from torch import nn

from distprof.clock import SystemClock
from distprof.probes.timing import processor_wait
from distprof.probes.timing.processor_wait import read_processor_wait, waited_since
from distprof.records import Step

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts it")


def train() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(4):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()


def spin_beside_others() -> None:
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
        before = read_processor_wait() or 0
        while (read_processor_wait() or 0) < before + 1_000_000:
            sum(range(1000))
    finally:
        os.kill(rival, 9)
        os.waitpid(rival, 0)
        os.sched_setaffinity(0, allowed)


def test_a_wait_beside_another_process_is_seen() -> None:
    before = read_processor_wait()
    if before is None:
        pytest.skip("this kernel does not count waits")
    spin_beside_others()
    waited = waited_since(before)
    assert waited is not None and waited >= 1_000_000


@pytest.mark.parametrize("content", [None, b"", b"1", b"a b c"])
def test_where_nothing_is_counted_the_wait_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "schedstat").write_bytes(content)
    monkeypatch.setattr(processor_wait, "_FILE", str(tmp_path / "schedstat"))
    assert read_processor_wait() is None
    assert waited_since(None) is None and waited_since(5) is None


def test_a_counter_that_goes_back_is_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schedstat").write_bytes(b"9 1000 3\n")
    monkeypatch.setattr(processor_wait, "_FILE", str(tmp_path / "schedstat"))
    assert waited_since(400) == 600
    assert waited_since(2000) is None


def test_steps_have_their_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = iter(range(0, 10_000_000, 1_000))  # two reads a step
    monkeypatch.setattr("distprof.probes.timing.probe.read_processor_wait", lambda: next(reads))
    monkeypatch.setattr("distprof.probes.timing.processor_wait.read_processor_wait", lambda: next(reads))
    steps = record(tmp_path / "seen", train, warmup=1, timed=2, clock=SystemClock()).of(Step)
    assert [(step.processor_wait_ns, step.processor_wait_seen) for step in steps] == [(1_000, True)] * 2
    monkeypatch.setattr("distprof.probes.timing.probe.read_processor_wait", lambda: None)
    steps = record(tmp_path / "unseen", train, warmup=1, timed=2, clock=SystemClock()).of(Step)
    assert [(step.processor_wait_ns, step.processor_wait_seen) for step in steps] == [(0, False)] * 2
