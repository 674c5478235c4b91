"""Mixtral on two real ranks: tokens of experts, padding among them and parameters are exact, however its experts are
wrapped or split.
"""

from __future__ import annotations

import pytest
from support.scenarios import RunScenarios, Scenario

pytestmark = pytest.mark.stack("transformers", "deepspeed")

WAYS = [
    *("fsdp1", "fsdp1_orig", "fsdp2", "tp", "ep", "tp_ep", "zero0", "zero1", "zero2", "zero3", "auto_ep"),
    *("checkpointed_experts", "checkpointed_layers", "checkpointed_by_transformers", "compiled"),
    pytest.param("peft", marks=pytest.mark.stack("peft")),
]
#: Ways that put two of the four experts on each rank.
SPLIT = ("ep", "tp_ep", "auto_ep")


@pytest.fixture(scope="module")
def scenarios(run_scenarios: RunScenarios) -> dict[str, Scenario]:
    return run_scenarios("on_mixtral.py", ranks=2)


@pytest.mark.parametrize("way", WAYS)
def test_experts_are_found_and_their_tokens_exact(scenarios: dict[str, Scenario], way: str) -> None:
    seen = scenarios[way]
    report = seen.report
    assert [(layer.num_experts, layer.top_k, layer.guessed) for layer in report.experts] == [(4, 2, False)] * 2
    assert [list(layer.tokens) for layer in report.experts] == seen.truth["tokens"]
    assert [layer.dropped for layer in report.experts] == [0, 0]
    rows = [layer.empty.rows for layer in report.experts if layer.empty is not None]
    if way == "auto_ep":
        assert all(one % 8 == 0 for one in rows), "DeepSpeed rounds the rows of each expert up to 8"
    elif way != "peft":  # its adapters, which work on weights, are as large as tiny weights
        assert rows == [sum(tokens) for tokens in seen.truth["tokens"]], "that experts ran on in the counted step"
    for layer, *counts in zip(report.experts, seen.truth["tokens"], seen.truth["padding"], strict=True):
        assert layer.counted is not None and layer.counted.entropy is not None and layer.counted.z_loss is not None
        shares = [part / tokens if tokens else None for tokens, part in zip(*counts, strict=True)]
        assert list(layer.counted.padding_shares) == shares
        assert 0.9 < layer.counted.entropy <= 1, "a router that has learned nothing"
    assert report.summary.params_exact == seen.whole
    expert = 3 * 16 * 32  # of one expert: gate, up and down
    adapters = 2 * (16 + 64) if way == "peft" else 0  # rank x (columns + rows) of gate and up
    assert report.model.params_by_kind["expert"] == 2 * 4 * (expert + adapters)
    assert [note for note in report.run.notes if "expert" in note] == []
    ranks = [(0,), (0,), (1,), (1,)] if way in SPLIT else [(0, 1)] * 4
    assert [list(layer.expert_ranks) for layer in report.experts] == [ranks] * 2
