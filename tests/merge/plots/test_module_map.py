"""The module map: every module is as wide as its time, inside the one that it is in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.reports import report_of

from distprof.merge.plots import module_map
from distprof.merge.plots.module_map import map_cells

JOB = {"dp": 1, "layers": 4, "steps": 3, "noise": 0.0}


def test_cells_are_as_wide_as_the_times_and_inside_their_parents() -> None:
    modules = report_of(**JOB).modules
    cells = {cell.index: cell for cell in map_cells(modules)}
    assert len(cells) > 20
    for index, cell in cells.items():
        module = modules[index]
        assert cell.length_ns == pytest.approx((module.forward_ns or 0) + (module.backward_ns or 0))
        if module.parent >= 0:
            above = cells[module.parent]
            assert cell.level == above.level + 1
            assert above.start_ns <= cell.start_ns
            assert cell.start_ns + cell.length_ns <= above.start_ns + above.length_ns + 1
    for one in cells.values():
        for other in cells.values():
            if one.level == other.level and one.start_ns < other.start_ns:
                assert one.start_ns + one.length_ns <= other.start_ns + 1, "cells of a level do not overlap"


def test_medians_that_sum_to_more_than_their_parent_stay_inside_it() -> None:
    modules = report_of(**JOB).modules
    shrunk = tuple(replace(m, forward_ns=1e6, backward_ns=0.0) if m.label == "blocks.1" else m for m in modules)
    cells = map_cells(shrunk)
    (block,) = [cell for cell in cells if shrunk[cell.index].label == "blocks.1"]
    inside = [cell for cell in cells if shrunk[cell.index].label.startswith("blocks.1.")]
    assert inside and all(cell.start_ns + cell.length_ns <= block.start_ns + block.length_ns + 1 for cell in inside)


def test_modules_that_are_too_narrow_are_left_to_their_parents() -> None:
    modules = report_of(**JOB).modules
    tiny = tuple(replace(m, forward_ns=10.0, backward_ns=10.0) if m.label == "blocks.0.attn" else m for m in modules)
    labels = {tiny[cell.index].label for cell in map_cells(tiny)}
    assert "blocks.0.mlp" in labels and not {"blocks.0.attn", "blocks.0.attn.qkv"} & labels


def test_the_map_is_that_of_one_process() -> None:
    figure: Any = module_map.draw(report_of(**JOB))
    written = [text.get_text() for text in figure.axes[0].texts]
    assert any(text.startswith("GPT ") for text in written)
    assert "Linear" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert module_map.draw(report_of(dp=4)) is None
    untimed = report_of(**JOB)
    bare = tuple(replace(m, forward_ns=None, backward_ns=None) for m in untimed.modules)
    assert module_map.draw(replace(untimed, modules=bare)) is None
