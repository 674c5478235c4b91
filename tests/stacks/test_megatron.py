"""Tests of Megatron-core's groups and layers on four real ranks, as far as they run without CUDA."""

from __future__ import annotations

import math

import pytest
from support.scenarios import RunScenarios, Scenario
from support.stacks_page import Line

pytestmark = pytest.mark.stack("megatron-core")

MEGATRON = Line("megatron-core", "Megatron-core (optional)")


@pytest.fixture(scope="module")
def scenarios(run_scenarios: RunScenarios) -> dict[str, Scenario]:
    return run_scenarios("on_megatron.py", ranks=4)


@MEGATRON.finds("tp, pp, dp, etp of its parallel state", "split weights, global layer numbers")
def test_tensor_and_pipeline_parallel(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["tp_pp"]
    assert (seen.sizes, seen.topologies[0].source) == ({"tp": 2, "pp": 2, "etp": 2}, "megatron")
    assert seen.places("tp", "pp", "dp") == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
    first, last = seen.parameters(1), seen.parameters(3)
    assert [name for name in first if name.endswith("up.weight")] == ["layers.0.up.weight", "layers.1.up.weight"]
    assert [name for name in last if name.endswith("up.weight")] == ["layers.2.up.weight", "layers.3.up.weight"]
    up, bias = last["layers.3.up.weight"], last["layers.3.down.bias"]
    assert (up.rank_numel, up.global_numel, up.sharded) == (128, 256, ("tp",))
    assert (bias.global_numel, bias.sharded) == (8, ())
    assert seen.report.summary.params_exact == seen.whole


@MEGATRON.finds("ep, edp of its parallel state")
def test_expert_groups(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["ep"]
    assert seen.sizes == {"dp": 2, "tp": 2, "ep": 2, "edp": 2}
    assert seen.places("dp", "tp", "ep", "edp") == [(0, 0, 0, 0), (0, 1, 1, 0), (1, 0, 0, 1), (1, 1, 1, 1)]


@MEGATRON.finds("tokens routed, processed and dropped by its MoE layers, capacity, auxiliary losses")
@pytest.mark.parametrize("name", ["moe", "moe_capacity", "moe_padded", "moe_gathered"])
def test_tokens_of_experts(scenarios: dict[str, Scenario], name: str) -> None:
    """Four ranks have 24 tokens each, of which each chooses two experts; ep is 2."""
    seen = scenarios[name]
    (layer,) = seen.report.experts
    routed, processed = seen.truth["routed"], seen.truth["processed"]
    lost = sum(routed) - sum(processed)
    assert (layer.num_experts, layer.top_k, sum(routed)) == (4, 2, 4 * 24 * 2)
    assert (list(layer.tokens), layer.dropped) == (processed, lost)
    assert (lost > 0) == (name in ("moe_capacity", "moe_padded"))
    assert sum(layer.routed) + layer.lost == sum(routed)
    assert lost or list(layer.routed) == routed
    assert layer.ep_tokens == (sum(processed[:2]), sum(processed[2:]))
    assert layer.aux_loss == pytest.approx(seen.truth["aux"])
    assert layer.expert_ranks == ((0, 2), (0, 2), (1, 3), (1, 3))
    assert layer.capacity == (4 * math.ceil(24 * 2 / 4 * 0.75) if lost else None)
    assert (seen.report.summary.params_exact, layer.breach) == (seen.whole, "")


@MEGATRON.finds("forward work of the model")
@pytest.mark.parametrize(("name", "macs"), [("tp_pp", 3 * 2 * 4 * 2 * 256), ("ep", 2 * 64)])
def test_useful_forward_work_equals_one_process(scenarios: dict[str, Scenario], name: str, macs: int) -> None:
    forward = scenarios[name].report.model.forward
    assert forward is not None
    assert (forward.useful_macs, forward.macs, forward.covers_all) == (macs, macs, True)
