"""The text of a comparison: the answer first, in plain sentences, 80 columns wide."""

from __future__ import annotations

from dataclasses import replace

from support.reports import collectives_of
from support.simulated.sides import changed_side, side

from distprof.merge.diff.compare import compare
from distprof.merge.diff.data import Diff
from distprof.merge.diff.samples import Side
from distprof.merge.diff.text import render


def whole() -> Diff:
    """Returns a comparison that has all parts."""
    first, second = side(), changed_side("head", 3.0)
    both = collectives_of(4)
    first = replace(first, report=replace(first.report, collectives=replace(both, rows=both.rows[1:])))
    run = replace(second.report.run, torch="2.99", name="a run with a name of many words, " * 4)
    report = replace(second.report, run=run, modules=second.report.modules[:-1], collectives=both)
    return compare(first, Side(report, second.places, second.own))


def test_it_is_80_columns_wide() -> None:
    for diff in (whole(), compare(side(), side(seed=1)), compare(side(), side(layers=5, hot=4.0))):
        assert max(map(len, render(diff).splitlines())) <= 80


def test_the_answer_comes_first() -> None:
    lines = render(whole()).splitlines()
    assert lines[0].startswith("the second run is slower: the median iteration takes ")
    assert lines[2].startswith("slower: forward of head, +")
    assert "first:  synthetic-1" in lines
    equal = render(compare(side(), side(seed=1))).splitlines()
    assert equal[0].startswith("no change beyond the noise: iteration, median ")
    assert any(line.startswith("no module changed beyond the noise, which is +-") for line in equal)
    place = render(compare(side(), changed_side("head", 1.2))).splitlines()
    assert place[0].startswith("1 place slower, the iteration inside the noise: iteration, median +")
    faster = render(compare(changed_side("head", 3.0), side())).splitlines()
    assert faster[0].startswith("the second run is faster: the median iteration takes ")


def test_wide_bounds_have_their_reason_in_the_answer() -> None:
    waiting = render(compare(side(), changed_side("head", 3.0, waited=0.8))).splitlines()
    assert waiting[0].startswith("no change beyond the noise: ") or " slower, the iteration inside" in waiting[0]
    assert any(line.startswith("the noise is large: ") for line in waiting[:4])


def test_other_amounts_of_work_are_compared_by_throughput() -> None:
    assert render(compare(side(), side(batch=16))).startswith("the second run is faster: the throughput is 100")
