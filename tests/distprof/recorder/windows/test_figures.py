"""What is shown of a window's records does not depend on how many are read at a time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import Job, rank_records

from distprof.recorder.windows.figures import WindowFigures
from distprof.records import Record, Step

RECORDS = list(rank_records(Job(dp=2, layers=2, experts=4, ep=2, steps=5, routes=True), 1))


def read(pieces: list[list[Record]]) -> WindowFigures:
    figures = WindowFigures()
    for records in pieces:
        figures.read(records)
    return figures


@given(st.lists(st.integers(0, len(RECORDS))))
def test_records_that_are_read_at_once_give_what_those_of_each_moment_do(cuts: list[int]) -> None:
    at_once = read([RECORDS])
    bounds = [0, *sorted(cuts), len(RECORDS)]
    # The tokens of experts are written with their step, and are read with it.
    ends = [max((at for at in range(bound) if isinstance(RECORDS[at], Step)), default=0) for bound in bounds[:-1]]
    in_pieces = read([RECORDS[first:end] for first, end in pairwise([*ends, len(RECORDS)])])
    assert (in_pieces.last, in_pieces.work()) == (at_once.last, at_once.work())
    last = [one for one in RECORDS if isinstance(one, Step)][-1]
    assert (at_once.last.iteration, at_once.last.duration_ns) == (last.iteration, last.duration_ns)
    assert at_once.last.expert_tokens > 0 and at_once.work().mean_ns > 0
