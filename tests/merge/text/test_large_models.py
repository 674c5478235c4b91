"""The text of large models: layers are folded, and what is said of many layers stays short."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from support.reports import changed_report, report_of

from distprof.merge.report import Report
from distprof.merge.text import DEFAULTS, render
from distprof.merge.text.deepspeed.tree import detailed_profile
from distprof.records import ExpertLoad, Record

LAYERS, MODULES = 94, 1_000
MOST_LINES = 120
MOE: dict[str, Any] = {"layers": 2 * LAYERS, "experts": 16, "hot": 3.0, "steps": 2}
STAGES: dict[str, Any] = {"dp": 2, "pp": 4, "layers": 8, "steps": 2}


@pytest.mark.parametrize(
    ("job", "lost"),
    [
        ({"dp": 8, "ep": 8, "micro_batches": 2, "slow_rank": 5}, ()),
        ({"dp": 2, "tp": 2, "pp": 4, "ep": 2}, (3,)),
        ({"dp": 2, "pp": 6, "ep": 2, "local_names": True}, (3,)),
    ],
)
def test_94_layers_of_experts_fold_to_less_than_120_lines(job: dict[str, Any], lost: tuple[int, ...]) -> None:
    """Every second block is a mixture of experts; where the shard of a rank is lost, its stage differs from others."""
    report = changed_report(without=lost, **MOE, **job)
    assert len(report.experts) == LAYERS and len(report.modules) >= MODULES
    lines = list(detailed_profile(report, None))
    assert len(lines) < MOST_LINES, "\n".join(lines)


def asleep(blocks: int) -> Report:
    """Returns the report of as many blocks: the first expert of each second layer has no token in the later steps."""
    steps, first = 4, dict[int, int]()

    def change(rank: int, record: Record) -> Record:
        if not isinstance(record, ExpertLoad):
            return record
        tokens = np.array(record.tokens).reshape(blocks // 2, -1)
        if record.iteration - first.setdefault(rank, record.iteration) >= steps // 2:
            tokens[::2, 0] = 0
        return ExpertLoad(record.iteration, tokens.reshape(-1))

    return changed_report(change, dp=2, ep=2, layers=blocks, experts=4, hot=3.0, steps=steps)


def test_more_layers_do_not_make_the_text_longer() -> None:
    few, many = (render(asleep(blocks), DEFAULTS).splitlines() for blocks in (52, 92))
    assert len(many) <= len(few) + 1, "a line says how many layers the table leaves out"
    assert [line.partition(":")[2] for line in many if line.endswith("no token in the second half of the steps.")] == [
        " experts 0, 2 had no token in the second half of the steps."
    ] * 3
    assert "So it is with experts of 20 more layers." in many


def test_shares_of_stages_that_run_at_the_same_time_are_not_added_up() -> None:
    assert re.search(r"^and \d+ more, in summary.json.$", render(report_of(**STAGES), DEFAULTS), re.MULTILINE)
    alone = render(report_of(**STAGES | {"pp": 1}), DEFAULTS)
    assert re.search(r"^and \d+ more with \d+% together, in summary.json.$", alone, re.MULTILINE)


def test_a_long_list_of_dead_experts_is_cut() -> None:
    def change(rank: int, record: Record) -> Record:
        if not isinstance(record, ExpertLoad):
            return record
        return ExpertLoad(record.iteration, record.tokens * (np.arange(len(record.tokens)) % 2))

    text = render(changed_report(change, dp=2, layers=2, experts=256, steps=2), DEFAULTS)
    line = next(line for line in text.partition(" Experts ")[2].splitlines() if line.startswith("blocks.1.moe  "))
    assert "0, 2, ..., 254 (128 experts)" in line and len(line) < 120
