"""Tests of intervals summed by row, compared with the same sums in plain Python."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.recording import Ticking, record
from support.records import patient
from support.simulated.clock import FakeClock
from torch import nn

from distprof.probes.timing.call_orders import CallOrders
from distprof.probes.timing.module_times import ModuleTimeSums
from distprof.probes.timing.node_hooks import NOBODY
from distprof.probes.timing.timeline import HostTimestamps, Intervals, Timeline
from distprof.records import Step

#: A piece of work: the owner of each interval (~row in backward), and which modules were called.
PIECES = st.tuples(
    st.lists(st.tuples(st.one_of(st.integers(-6, 5), st.just(NOBODY)), st.integers(0, 50))),
    st.lists(st.integers(0, 5)),
)


@patient
@given(st.lists(st.lists(PIECES, max_size=4), max_size=4))
def test_every_iteration_sums_its_own_intervals(
    iterations: list[list[tuple[list[tuple[int, int]], list[int]]]],
) -> None:
    """After any earlier iterations: a known order of intervals is used again."""
    clock, orders = FakeClock(), CallOrders()
    timeline = Timeline(HostTimestamps(clock.mono_ns), NOBODY)
    for pieces in iterations:
        sums, expected, calls = ModuleTimeSums(orders), Counter[int](), Counter[int]()
        for intervals, entered in pieces:
            timeline.restart(NOBODY)
            for owner, milliseconds in intervals:
                timeline.switch_to(owner)
                clock.advance_ms(milliseconds)
                expected[owner] += round(milliseconds * 1e6)
            sums.add(timeline.finish(), entered)
            calls.update(entered)
        rows = len(sums.forward_ns)
        assert len(sums.backward_ns) == rows >= len(sums.calls)
        assert sums.forward_ns.tolist() == [expected[row] for row in range(rows)]
        assert sums.backward_ns.tolist() == [expected[~row] for row in range(rows)]
        assert sums.calls.tolist() == [calls[row] for row in range(len(sums.calls))]
        assert not any(expected[row] or expected[~row] or calls[row] for row in range(rows, 6))


def test_every_interval_of_a_step_is_seen_when_it_is_summed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also of a step with many backwards, whose intervals are summed after each."""
    monkeypatch.setattr("distprof.probes.timing.module_timer.MAX_KEPT", 20)
    seen: list[tuple[list[int], list[int]]] = []
    add = ModuleTimeSums.add

    def seen_add(sums: ModuleTimeSums, intervals: Intervals, entered: list[int], *, last: bool = False) -> None:
        seen.append((intervals.owners[:], [*intervals.timestamps]))
        add(sums, intervals, entered, last=last)

    monkeypatch.setattr(ModuleTimeSums, "add", seen_add)
    model = nn.Sequential(Ticking(2, 3), Ticking(5, 7))

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            for _ in range(20):
                model(torch.ones(3, requires_grad=True)).sum().backward()
            optimizer.step()

    found = record(tmp_path, job, timed=1)
    (step,) = found.of(Step)
    assert len(seen) > 2
    lengths = Counter[int]()
    for owners, moments in seen:
        assert len(moments) == len(owners) + 1
        for owner, (start, end) in zip(owners, pairwise(moments), strict=True):
            lengths[owner] += end - start
    assert step.forward_ns.tolist() == [lengths[row] for row in range(3)]
    assert step.backward_ns.tolist() == [lengths[~row] for row in range(3)]
    assert sum(step.forward_ns) == 20 * 7 * 1_000_000
