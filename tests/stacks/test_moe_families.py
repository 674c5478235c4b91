"""Families of transformers' MoE layers on two ranks: tokens of experts equal the rows that met their weights.

``DISTPROF_FAMILIES=all`` takes every family that the installed transformers has, and names those that it leaves out.
"""

from __future__ import annotations

import os

import pytest
from support.scenarios import RunScenarios, Scenario

from distprof.merge.report import ExpertLayerStats

pytestmark = pytest.mark.stack("transformers")

#: Its experts are rows of embeddings: suspected, not understood.
SUSPECTED = "doge_DogeCDMoE"
#: Every expert computes every token, with zeros for those that did not choose it.
COMPUTE_ALL = "llama4_Llama4TextMoe"
#: Its router returns scores: what its experts are handed is known, but not whether choices were dropped before.
UNREAD = "dbrx_DbrxFFN"
#: At least so many layers of all families are exact.
EXACT = 70


@pytest.fixture(scope="module")
def seen(run_scenarios: RunScenarios) -> Scenario:
    return run_scenarios("on_moe_families.py", ranks=2)["families"]


def layers(seen: Scenario) -> dict[str, ExpertLayerStats]:
    return {layer.name.removeprefix("families.").removesuffix(".layer"): layer for layer in seen.report.experts}


def test_tokens_are_the_rows_that_met_the_weights(seen: Scenario) -> None:
    found = layers(seen)
    truth = {name.removeprefix("families.").removesuffix(".layer"): rows for name, rows in seen.truth["rows"].items()}
    truth.pop(COMPUTE_ALL)
    assert list(found[UNREAD].routed) == truth.pop(UNREAD)
    assert {name: list(found[name].tokens) for name in truth} == truth
    if os.environ.get("DISTPROF_FAMILIES") == "all":
        assert len(truth) >= EXACT, seen.truth["left out"]
    else:
        assert seen.truth["left out"].keys() == {"jetmoe_JetMoeMoA"}, "its forward is not to be called"


def test_what_is_no_product_is_named(seen: Scenario) -> None:
    found, report = layers(seen), seen.report
    assert SUSPECTED not in found
    assert report.model.active_params is None
    assert report.model.why_no_active == f"experts suspected, not understood: families.{SUSPECTED}.layer"
    assert sum(found[COMPUTE_ALL].tokens) == 2 * (2 * 9) * 2, "ranks x tokens x top-k"  # type: ignore[arg-type]


def test_what_breaks_the_rule_is_noted(seen: Scenario) -> None:
    """NLLB's experts are called with a mask where ids are meant: some process more than was chosen."""
    breaches = [name for name, layer in layers(seen).items() if layer.breach]
    assert breaches == ["nllb_moe_NllbMoeSparseMLP"]
