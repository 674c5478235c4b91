"""Tests of the soak's jobs of experts: how their reports are judged."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.reports import report_of

from distprof.merge.report import ONLY_DEVICE, ONLY_TOKENS, Report, TokensOrDevice

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return import_module("soak.experts.run").Tally()


def said(cause: str, saved_ns: float) -> Report:
    """A report that names this cause, and whose iteration would be so much shorter with equal loads."""
    report = report_of(dp=2, ep=2, layers=2, noise=0)
    (layer,) = report.experts
    found = TokensOrDevice(cause, 0.0, 1e6, (1.0, 1.0), saved_ns)
    return replace(report, experts=(replace(layer, tokens_or_device=found, load_cost_ns=saved_ns),))


def test_the_cause_follows_from_the_kind_of_job(tally: Any) -> None:
    tally.add_cause("hot-3", said(ONLY_TOKENS, 0.0))
    tally.add_cause("even-0", said("", 0.0))
    assert tally.is_clean and tally.right == 2
    tally.add_cause("both-1", said(ONLY_DEVICE, 0.0))
    assert not tally.is_clean and str(tally).splitlines() == [
        "tokens, a device, both or neither: 2 of 3 right",
        "both-1: device",
    ]


@pytest.mark.parametrize(("share", "clean"), [(0.05, True), (0.2, False)])
def test_the_iteration_with_equal_loads_has_to_be_predicted_to_a_tenth(tally: Any, share: float, clean: bool) -> None:
    equal = said("", 0.0)
    assert equal.summary.iterations is not None
    iteration_ns = equal.summary.iterations.median_ns
    tally.add_saving(said(ONLY_TOKENS, share * iteration_ns), equal)  # whose iteration is as long
    assert tally.errors == pytest.approx([share]) and tally.is_clean is clean
