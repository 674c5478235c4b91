"""The table that the soak prints of pairs of runs: by the bounds that diff gave."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.simulated.sides import changed_side, side

from distprof.merge.diff.compare import compare
from distprof.merge.diff.data import Diff

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return import_module("soak.diff.tally").Tally(("head", "forward"), 0.5, "one run of each")


def test_rates_stand_beside_the_bounds(tally: Any) -> None:
    first = side()
    for seed in (1, 2):
        tally.add_equal(compare(first, side(seed=seed)))
    tally.add_slower(compare(first, changed_side("head", 1.5)))
    assert tally.is_clean
    title, heading, *lines = str(tally).splitlines()
    assert title.startswith(
        "diff, one run of each: 2 equal pairs, 0 false alarms; 1 with forward of head 50% slower, found in 1, another "
        "place named in 0; "
    )
    assert heading.split() == ["bound", "that", "diff", "gave", "pairs", "found", "change,", "mean"]
    assert sum(int(line.split()[-3]) for line in lines if line.split()[-1].endswith("%")) == 1


def test_whatever_is_named_of_equal_runs_is_a_false_alarm(tally: Any) -> None:
    different = compare(side(), changed_side("head", 1.5))
    tally.add_equal(different)
    assert not tally.is_clean and "false alarm: " in str(tally) and "forward of head +" in str(tally)


def test_another_place_is_a_wrong_name(tally: Any) -> None:
    diff: Diff = compare(side(), changed_side("blocks.0.mlp.up", 1.5))
    tally.add_slower(replace(diff, first="one"))
    assert len(tally.misnamed) == 1 and not tally.is_clean
    assert "misnamed: one and " in str(tally)
