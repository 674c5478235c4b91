"""Tests of timelines: phases and long turns of a step, on a clock that the test sets."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.recording import MS, Seen, Ticking, clock, record, train
from support.records import patient
from support.simulated.clock import FakeClock
from torch import nn

from distprof.probes.timing.call_orders import CallOrders
from distprof.probes.timing.module_times import ModuleTimeSums
from distprof.probes.timing.node_hooks import NOBODY
from distprof.probes.timing.timeline import HostTimestamps, Timeline
from distprof.records import LONG_TURN_NS, NO_ROW, Step
from distprof.records import Timeline as TimelineRecord

TURNS = st.lists(st.tuples(st.one_of(st.integers(-4, 3), st.just(NOBODY)), st.sampled_from([0, 0.5, 0.999, 1, 7.25])))


@patient
@given(st.lists(TURNS, min_size=1, max_size=4))
def test_every_long_turn_is_kept_with_its_number_and_its_moments(pieces: list[list[tuple[int, float]]]) -> None:
    """Whether the turns of the step are added in one piece or in several."""
    time = FakeClock()
    timeline, sums = Timeline(HostTimestamps(time.mono_ns), NOBODY), ModuleTimeSums(CallOrders())
    expected, turns = [], dict[int, int]()
    for number, piece in enumerate(pieces, 1):
        timeline.restart(NOBODY)
        turns[NOBODY] = turns.get(NOBODY, 0) + 1  # each piece begins with a turn of nobody, without length
        for owner, milliseconds in piece:
            timeline.switch_to(owner)
            start = time.mono_ns()
            time.advance_ms(milliseconds)
            if time.mono_ns() - start >= LONG_TURN_NS:
                expected.append((min(owner, NO_ROW), turns.get(owner, 0), start, time.mono_ns()))
            turns[owner] = turns.get(owner, 0) + 1
        sums.add(timeline.finish(), [], last=number == len(pieces))
    found = sums.long_turns.columns()
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected
    assert [column.dtype.str for column in found] == ["<i4", "<i8", "<i8", "<i8"]


def assert_phases_agree(found: Seen) -> None:
    """Each timeline has the phases of its step, interval after interval."""
    for step, timeline in zip(found.of(Step), found.of(TimelineRecord), strict=True):
        assert (timeline.iteration, timeline.mode) == (step.iteration, step.mode)
        moments = [*timeline.phase_start_ns.tolist(), timeline.end_ns]
        assert moments[0] == timeline.start_ns and moments == sorted(moments)
        sums = dict.fromkeys(timeline.phase_names, 0)
        for place, (start, end) in zip(timeline.phase.tolist(), pairwise(moments), strict=True):
            sums[timeline.phase_names[place]] += end - start
        assert {phase: sum_ns for phase, sum_ns in sums.items() if sum_ns} == {
            phase: sum_ns for phase, sum_ns in step.phases_ns.items() if sum_ns
        }


def test_a_timeline_has_the_phases_and_the_long_turns_of_its_step(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(2, 3), Ticking(0.5, 0.25), Ticking(5, 0.5))
    began = clock.mono_ns()
    found = record(tmp_path, lambda: train(model, torch.ones(4), steps=3), warmup=1, timed=2)
    assert_phases_agree(found)
    step_ms = 2 + 0.5 + 5 + 3 + 0.25 + 0.5 + 3
    for number, timeline in enumerate(found.of(TimelineRecord), 1):
        start = began + round(number * step_ms * MS)
        assert (timeline.start_ns, timeline.end_ns) == (start, start + round(step_ms * MS))
        named = [
            (found.names[owner] if 0 <= owner < NO_ROW else found.names[~owner] if owner < 0 else "", turn, from_ms, to)
            for owner, turn, from_ms, to in zip(
                timeline.turn_owner.tolist(),
                timeline.turn_number.tolist(),
                ((timeline.turn_start_ns - start) / MS).tolist(),
                ((timeline.turn_end_ns - start) / MS).tolist(),
                strict=True,
            )
        ]
        names = [name for name, *_ in named]
        assert names == ["0", "2", "0", ""] and [turn for _, turn, *_ in named][:3] == [0, 0, 0]
        assert [moments for _, _, *moments in named] == [[0, 2], [2.5, 7.5], [8.25, 11.25], [11.25, 14.25]]
        assert timeline.turn_owner.tolist()[2] < 0 and not timeline.unseen


def test_a_step_of_many_turns_loses_none_of_the_long_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals of a long step are summed after each backward."""
    monkeypatch.setattr("distprof.probes.timing.module_timer.MAX_KEPT", 20)
    model = nn.Sequential(Ticking(2, 3), Ticking(0.5, 0.5))

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(30):
            model(torch.ones(3, requires_grad=True)).sum().backward()
        optimizer.step()

    found = record(tmp_path, job)
    (timeline,) = found.of(TimelineRecord)
    first = found.names.index("0")
    for owner, length_ms in ((first, 2), (~first, 3)):
        own = timeline.turn_owner == owner
        assert timeline.turn_number[own].tolist() == list(range(30))
        assert set((timeline.turn_end_ns - timeline.turn_start_ns)[own].tolist()) == {length_ms * MS}
    assert_phases_agree(found)
