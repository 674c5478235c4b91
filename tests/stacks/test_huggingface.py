"""Tests of transformers and accelerate on four real ranks: sizes, coordinates, layouts, names and exact totals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.scenarios import RunScenarios, Scenario
from support.stacks_page import Line

pytestmark = pytest.mark.stack("transformers", "accelerate")

ALL = [(rank,) for rank in range(4)]

TRANSFORMERS = Line("transformers", "transformers")
TRAINER, ACCELERATE = Line("transformers", "transformers' Trainer"), Line("accelerate", "accelerate")


@pytest.fixture(scope="module")
def scenarios(run_scenarios: RunScenarios) -> dict[str, Scenario]:
    return run_scenarios("on_huggingface.py", ranks=4)


@TRAINER.finds("dp of its DDP")
@ACCELERATE.finds("dp of its DDP")
@pytest.mark.parametrize("name", ["ddp", "trainer", "accelerator"])
def test_data_parallel(scenarios: dict[str, Scenario], name: str) -> None:
    seen = scenarios[name]
    assert (seen.sizes, seen.places("dp"), seen.topologies[0].source) == ({"dp": 4}, ALL, "torch")


@TRANSFORMERS.finds("stacked experts, routers, top-k")
def test_names_and_kinds_of_mixtral_under_ddp(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["ddp"]
    kinds = {name: parameter.kind for name, parameter in seen.parameters(1).items()}
    assert kinds["model.layers.1.mlp.experts.gate_up_proj"] == "expert"
    assert kinds["model.layers.1.mlp.gate.weight"] == "router"
    assert kinds["model.embed_tokens.weight"] == "embedding"
    assert kinds["lm_head.weight"] == kinds["model.layers.0.self_attn.q_proj.weight"] == "dense"
    layers = seen.expert_layers(1)
    assert [(layer.name, layer.local_experts) for layer in layers] == [
        ("model.layers.0.mlp", (0, 1, 2, 3)),
        ("model.layers.1.mlp", (0, 1, 2, 3)),
    ]
    assert [(layer.top_k, layer.counted) for layer in layers] == [(2, False)] * 2


@TRANSFORMERS.finds("tp, FSDP 2 and ep of its plans")
def test_mixtral_cut_by_its_own_plans(scenarios: dict[str, Scenario]) -> None:
    """Dense layers are split over tp 2 x FSDP 2, experts over all four ranks."""
    seen = scenarios["tp_fsdp_ep"]
    assert seen.sizes == {"dp": 2, "tp": 2, "ep": 4}
    assert seen.places("dp", "tp", "ep") == [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)]
    sources = seen.topologies[0].sources
    assert (sources["dp"], sources["tp"], sources["ep"]) == ("transformers", "transformers", "device_mesh")
    assert all(topology.notes == () for topology in seen.topologies)
    parameters = seen.parameters(2)
    expert, query = (
        parameters[f"model.layers.0.{name}"] for name in ("mlp.experts.down_proj", "self_attn.q_proj.weight")
    )
    assert (expert.sharded, expert.local_numel, expert.rank_numel, expert.global_numel) == (("ep",), 512, 512, 2048)
    assert (query.sharded, query.local_numel, query.rank_numel, query.global_numel) == (("dp", "tp"), 64, 128, 256)
    assert [layer.local_experts for layer in seen.expert_layers(2)] == [(2,), (2,)]
    assert list(parameters) == list(scenarios["ddp"].parameters(2)), "names are the model's own"


@TRANSFORMERS.finds("tokens of each expert")
@pytest.mark.parametrize(("name", "batches", "ep"), [("ddp", 4, 1), ("tp_fsdp_ep", 2, 4), ("trainer", 4, 1)])
def test_tokens_of_experts(scenarios: dict[str, Scenario], name: str, batches: int, ep: int) -> None:
    """A batch has 16 tokens, each for two experts; tensor-parallel ranks share a batch."""
    stats = scenarios[name].report.experts
    assert len(stats) == 2
    for layer in stats:
        assert (sum(layer.routed), layer.dropped, layer.top_k) == (2 * 16 * batches, 0, 2)
        assert layer.tokens == layer.routed, "nothing is dropped, wherever the experts are"
        assert (len(layer.tokens), len(layer.ep_tokens)) == (4, ep if ep > 1 else 0)
        assert not layer.ep_tokens or layer.ep_tokens == layer.tokens, "one expert a rank"


def test_every_way_to_compute_experts_gets_the_same_tokens(scenarios: dict[str, Scenario]) -> None:
    """An expert without tokens is listed too."""
    ways = ("eager", "grouped_mm", "grouped_mm_fallback", "batched_mm", "qwen3")
    seen = {name: [replace(one, times=None, counted=None) for one in scenarios[name].report.experts] for name in ways}
    assert seen["eager"] == seen["grouped_mm"] == seen["grouped_mm_fallback"] == seen["batched_mm"]
    for layer in (*seen["eager"], *seen["qwen3"]):
        assert (layer.num_experts, layer.top_k, layer.dropped, layer.steps) == (8, 2, 0, 1)
        assert layer.tokens == layer.routed
        assert (sum(layer.routed), layer.routed[7], 7 in layer.dead) == (4 * 32 * 2, 0, True)
        assert sum(count > 0 for count in layer.routed) > 2


def test_totals_are_those_of_the_model_built_whole(scenarios: dict[str, Scenario]) -> None:
    summaries = {name: seen.report.summary for name, seen in scenarios.items()}
    assert {name: s.params_exact for name, s in summaries.items()} == {n: s.whole for n, s in scenarios.items()}
    assert all(summary.exact_covers_all for summary in summaries.values())


def mixtral(length: int, head: int, experts: int, width: int) -> int:
    """Returns the MACs of one token: two layers of attention over the ``length`` of its sequence, by four heads of
    ``head``, and of two of the ``experts``, three matrices of 16 x ``width`` each; then the vocabulary.
    """
    attention = 4 * 16 * 4 * head + 2 * length * 4 * head
    return 2 * (attention + 16 * experts + 2 * 3 * 16 * width) + 16 * 64


FORWARD = "forward work of the model"
WORK = {
    **dict.fromkeys(["ddp", "trainer", "tp_fsdp_ep"], 2 * 8 * mixtral(8, 4, 4, 32)),
    **dict.fromkeys(["eager", "grouped_mm", "grouped_mm_fallback", "batched_mm"], 2 * 16 * mixtral(16, 4, 8, 32)),
    "qwen3": 2 * 16 * mixtral(16, 4, 8, 16),
    "accelerator": 2 * (8 * 16 + 16 * 3),
}


@TRANSFORMERS.finds(FORWARD)
@TRAINER.finds(FORWARD)
@ACCELERATE.finds(FORWARD)
@pytest.mark.parametrize("name", WORK)
def test_useful_forward_work_equals_one_process(scenarios: dict[str, Scenario], name: str) -> None:
    forward = scenarios[name].report.model.forward
    assert forward is not None
    assert (forward.useful_macs, forward.macs, forward.covers_all) == (WORK[name], WORK[name], True)
    assert (forward.executed_macs > forward.macs) == (name == "tp_fsdp_ep"), "routers are whole on tp ranks"
