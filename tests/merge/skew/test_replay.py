"""The replay of random programs gives the moments that follow from one event to the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distprof.merge.skew.what_if import Program, replay

ENQUEUE, WAIT, END = 0, 1, 2
#: (own time, kind, event)
Item = tuple[float, int, int]


@st.composite
def jobs(draw: st.DrawFn) -> list[list[Item]]:
    """Ranks enter collectives of some of them in one order, and wait for some of what they entered, in two steps."""
    ranks = draw(st.integers(1, 4))
    own = st.integers(0, 50).map(float)
    programs: list[list[Item]] = [[] for _ in range(ranks)]
    event = 0
    for step in range(2):
        entered: list[list[int]] = [[] for _ in range(ranks)]
        for _ in range(draw(st.integers(0, 5))):
            for rank in draw(st.sets(st.integers(0, ranks - 1), min_size=1)):
                programs[rank].append((draw(own), ENQUEUE, event))
                entered[rank].append(event)
            for rank in range(ranks):
                is_waited_for: bool = draw(st.booleans())
                if entered[rank] and is_waited_for:
                    programs[rank].append((draw(own), WAIT, draw(st.sampled_from(entered[rank]))))
            event += 1
        for rank in range(ranks):
            programs[rank].append((draw(own), END, step))
    return programs


def by_hand(programs: list[list[Item]]) -> list[float]:
    """Returns when the last rank ended each step; each moment is computed from the ones that it depends on."""
    known: dict[tuple[int, int], float] = {}

    def moment(rank: int, place: int) -> float:
        if place < 0:
            return 0.0
        if (rank, place) not in known:
            own, kind, event = programs[rank][place]
            now = moment(rank, place - 1) + own
            if kind == WAIT:
                now = max(
                    now,
                    *(
                        moment(other, at)
                        for other, items in enumerate(programs)
                        for at, item in enumerate(items)
                        if item[1:] == (ENQUEUE, event)
                    ),
                )
            known[rank, place] = now
        return known[rank, place]

    return [
        max(moment(rank, items.index(item)) for rank, items in enumerate(programs) for item in items if item[1:] == end)
        for end in ((END, 0), (END, 1))
    ]


def program_of(items: list[Item]) -> Program:
    own, kind, event = (np.array(column) for column in zip(*items, strict=True))
    return Program(kind.astype(np.int64), event.astype(np.int64), own, np.zeros(len(items), np.int64), 0, np.zeros(0))


@settings(max_examples=150, deadline=None)
@given(jobs())
def test_steps_end_when_the_last_rank_has_done_what_it_had_to_wait_for(job: list[list[Item]]) -> None:
    programs = [program_of(items) for items in job]
    found = replay(programs, [program.own_ns for program in programs], 2)
    assert found is not None and np.cumsum(found).tolist() == pytest.approx(by_hand(job))


def test_ranks_that_wait_for_each_other_for_ever_have_no_replay() -> None:
    one = program_of([(1.0, WAIT, 1), (1.0, ENQUEUE, 0), (1.0, END, 0)])
    other = program_of([(1.0, WAIT, 0), (1.0, ENQUEUE, 1), (1.0, END, 0)])
    assert replay([one, other], [one.own_ns, other.own_ns], 1) is None
