"""Empty slots of experts' capacity, against the rows of the synthetic run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.reports import report_of

from distprof.merge.experts.cost import EpTimes, with_costs
from distprof.merge.report import ONLY_TOKENS, Report
from distprof.merge.text.blocks.moe.findings import findings


def report(**job: Any) -> Report:
    return report_of(**{"dp": 4, "ep": 2, "layers": 2, "experts": 4, "noise": 0, "steps": 3, **job})


def test_rows_without_a_token_cost_their_share_of_the_experts_time() -> None:
    found = report(padding=4)
    (layer,) = found.experts
    assert layer.empty is not None and layer.times is not None and layer.times.experts_ns is not None
    assert layer.empty.share == pytest.approx(3 / 4)
    assert layer.empty.cost_ns == pytest.approx(3 / 4 * layer.times.experts_ns)
    assert layer.empty.equal_rows
    summary = found.expert_summary
    assert summary is not None
    assert [summary.empty_share, summary.empty_cost_ns] == pytest.approx([3 / 4, layer.empty.cost_ns])
    assert summary.has_empty_slots
    (line,) = (line for line in findings(found) if line.startswith("Empty slots: 75% of the rows"))
    assert "of an iteration" in line


def test_full_slots_cost_nothing() -> None:
    found = report()
    (layer,) = found.experts
    assert layer.empty is not None
    assert (layer.empty.share, layer.empty.cost_ns, layer.empty.equal_rows) == (0.0, 0.0, False)
    assert not [line for line in findings(found) if line.startswith("Empty slots")]


def test_without_a_counted_step_they_are_not_known() -> None:
    (layer,) = report(counted=False).experts
    assert layer.empty is None


def test_tokens_are_no_cause_where_ep_ranks_run_on_as_many_rows() -> None:
    """Times that follow tokens by chance: with a capacity, they cannot be because of them."""
    tokens = np.array([[100.0, 110, 120, 130], [300, 290, 280, 270]])
    times = EpTimes((0, 1, 2, 3), 1e4 * tokens, 1e4 * tokens)
    (full,), (padded,) = report().experts, report(padding=4).experts
    by_tokens = with_costs(full, times, tokens).tokens_or_device
    assert by_tokens is not None and by_tokens.cause == ONLY_TOKENS
    by_rows = with_costs(padded, times, tokens)
    assert by_rows.tokens_or_device is not None and by_rows.tokens_or_device.cause != ONLY_TOKENS
    assert by_rows.load_cost_ns == pytest.approx(0)
