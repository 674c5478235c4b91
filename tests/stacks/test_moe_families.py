"""Families of transformers' MoE layers on two ranks: tokens of experts equal the rows that met their weights.

``DISTPROF_FAMILIES=all`` takes every family that the installed transformers has, in some minutes; with ``--write-page``
it also writes the list in docs/EXPERTS.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import pytest
from support.moe.families_page import listed, write
from support.scenarios import RunScenarios

from distprof.merge.report import ExpertLayerStats, Report

pytestmark = pytest.mark.stack("transformers")

#: "all", or nothing.
WHICH = os.environ.get("DISTPROF_FAMILIES", "")
#: Its experts are rows of embeddings.
SUSPECTED = "doge_DogeCDMoE"
#: Every expert computes every token, with zeros for those that did not choose it.
COMPUTE_ALL = "llama4_Llama4TextMoe"
#: The layers whose tokens are not the rows that meet their experts' weights, and what the report has instead.
NOT_EXACT = {
    SUSPECTED: "suspected, not understood: its experts are rows of embeddings",
    COMPUTE_ALL: "the choices of its router: each expert computes every token, as zeros where it was not chosen",
}
#: At least so many layers of all families are exact.
EXACT = 70


@dataclass(frozen=True)
class Seen:
    report: Report
    layers: dict[str, ExpertLayerStats]
    rows: dict[str, list[int]]  # by layer, of each expert; none for a layer whose experts have no matrices
    made: list[str]
    left_out: dict[str, str]

    @cached_property
    def exact(self) -> set[str]:
        return {name for name, rows in self.rows.items() if list(self.tokens(name)) == rows}

    def tokens(self, name: str) -> tuple[int | None, ...]:
        return self.layers[name].tokens if name in self.layers else ()


def short(name: str) -> str:
    return name.removeprefix("families.").removesuffix(".layer")


@pytest.fixture(scope="module")
def seen(run_scenarios: RunScenarios) -> Seen:
    scenario = run_scenarios("on_moe_families.py", ranks=2, FAMILIES=WHICH)["families"]
    report, truth = scenario.report, scenario.truth
    layers = {short(layer.name): layer for layer in report.experts}
    rows = {short(name): rows for name, rows in truth["rows"].items()}
    return Seen(report, layers, rows, truth["made"], truth["left out"])


def test_tokens_are_the_rows_that_met_the_weights(seen: Seen) -> None:
    assert seen.left_out == {}
    others = [name for name in seen.made if name not in seen.exact and name not in NOT_EXACT]
    assert {name: (seen.tokens(name), seen.rows.get(name)) for name in others} == {}
    assert len(seen.exact) >= (EXACT if WHICH == "all" else 10)


def test_what_is_no_product_is_named(seen: Seen) -> None:
    assert SUSPECTED not in seen.layers
    assert seen.report.model.active_params is None
    assert seen.report.model.why_no_active == f"experts suspected, not understood: families.{SUSPECTED}.layer"
    assert sum(count or 0 for count in seen.tokens(COMPUTE_ALL)) == 2 * (2 * 9) * 2, "ranks x tokens x top-k"


def test_what_breaks_the_rule_is_noted(seen: Seen) -> None:
    """NLLB's experts are called with a mask where ids are meant: some process more than was chosen."""
    breaches = [name for name, layer in seen.layers.items() if layer.breach]
    assert breaches == ["nllb_moe_NllbMoeSparseMLP"]


def test_the_page_lists_them(seen: Seen, pytestconfig: pytest.Config) -> None:
    if WHICH == "all" and pytestconfig.getoption("--write-page"):
        write(seen.exact, NOT_EXACT)
    assert (listed() if WHICH == "all" else listed() & {*seen.made}) == seen.exact
