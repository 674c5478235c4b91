"""Tests of DeepSpeed on four real ranks: sizes, coordinates, layouts, names, experts and exact totals."""

from __future__ import annotations

import pytest
from support.scenarios import RunScenarios, Scenario
from support.stacks_page import Line

pytestmark = pytest.mark.stack("deepspeed")

ALL = [(rank,) for rank in range(4)]

FORWARD = "forward work of the model"
ZERO, PIPELINES = Line("deepspeed", "DeepSpeed ZeRO 1, 2, 3"), Line("deepspeed", "DeepSpeed pipelines")
MOE, AUTOTP = Line("deepspeed", "DeepSpeed MoE"), Line("deepspeed", "DeepSpeed AutoTP")


@pytest.fixture(scope="module")
def scenarios(run_scenarios: RunScenarios) -> dict[str, Scenario]:
    return run_scenarios("on_deepspeed.py", ranks=4)


@ZERO.finds("dp", "full sizes of parameters that ZeRO-3 has emptied, without padding")
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero(scenarios: dict[str, Scenario], stage: int) -> None:
    seen = scenarios[f"zero{stage}"]
    assert (seen.sizes, seen.places("dp"), seen.topologies[0].source) == ({"dp": 4}, ALL, "deepspeed")
    parameters = seen.parameters(1)
    assert list(parameters) == ["0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias", "1.weight", "1.bias"]
    bias = parameters["0.0.bias"]
    assert (bias.rank_numel, bias.global_numel) == (33, 33), "without the padding of its four pieces of 9"
    assert (bias.local_numel, bias.sharded) == ((9, ("dp",)) if stage == 3 else (33, ()))


@PIPELINES.finds("pp and dp of the grid", "global layer numbers", "tied layers once")
def test_a_pipeline_counts_tied_layers_once(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["pipeline"]
    assert (seen.sizes, seen.places("pp", "dp")) == ({"dp": 2, "pp": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)])
    first, last = seen.parameters(0), seen.parameters(3)
    tied = "tied_modules.embedding.weight"
    assert list(first) == [tied, "1.weight", "1.bias", "2.weight", "2.bias"]
    assert list(last) == [tied, "3.weight", "3.bias"], "layers are numbered over all stages"
    assert (first[tied].shared_as, last[tied].shared_as, last["3.weight"].shared_as) == (tied, tied, "")


def test_experts_that_are_all_on_every_rank(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["ep1"]
    assert (seen.sizes, seen.places("dp", "ep")) == ({"dp": 4, "edp": 4}, [(rank, 0) for rank in range(4)])
    assert [layer.local_experts for layer in seen.expert_layers(3)] == [(0, 1, 2, 3)]
    assert all(parameter.split == () for parameter in seen.parameters(3).values())


@MOE.finds("dp, ep, edp", "experts by global id", "top-k", "residual layers", "the same with ZeRO 1")
@pytest.mark.parametrize("name", ["ep2", "ep2_zero1"])
def test_experts_over_two_ranks(scenarios: dict[str, Scenario], name: str) -> None:
    seen = scenarios[name]
    assert seen.sizes == {"dp": 4, "ep": 2, "ep_size_2": 2, "edp": 2}
    assert seen.places("ep", "edp") == [(0, 0), (1, 0), (0, 1), (1, 1)]
    (layer,) = seen.expert_layers(3)
    assert (layer.name, layer.num_experts, layer.local_experts) == ("layers.0", 4, (2, 3))
    assert (layer.axis, layer.top_k, layer.counted) == ("ep_size_2", 1, False)
    parameters = seen.parameters(3)
    kinds = {name: (parameter.kind, parameter.split) for name, parameter in parameters.items()}
    assert kinds["layers.0.deepspeed_moe.experts.deepspeed_experts.1.2.bias"] == ("expert", ("ep_size_2",))
    assert kinds["layers.0.deepspeed_moe.gate.wg.weight"] == ("router", ())
    assert kinds["layers.0.mlp.0.weight"] == ("shared", ()), "the residual one sees every token"
    assert kinds["layers.0.coefficient.weight"] == kinds["first.weight"] == ("dense", ())


@MOE.finds("ep of several sizes in one model", "a dense module that two layers share, once")
def test_groups_of_several_sizes_in_one_model(scenarios: dict[str, Scenario]) -> None:
    """Two residual layers share one dense module."""
    seen = scenarios["ep2_and_4"]
    assert seen.sizes == {"dp": 4, "ep": 4, "ep_size_2": 2, "ep_size_4": 4}
    assert seen.places("ep_size_2", "ep_size_4", "ep") == [(rank % 2, rank, rank) for rank in range(4)]
    assert [(layer.axis, layer.local_experts) for layer in seen.expert_layers(2)] == [
        ("ep_size_2", (0, 1)),
        ("ep_size_4", (2,)),
    ]
    assert seen.parameters(2)["layers.1.mlp.0.weight"].tied_to == "layers.0.mlp.0.weight"


@MOE.finds("tokens routed, processed and dropped, capacity, auxiliary losses")
@pytest.mark.parametrize(("name", "layers"), [("ep1", 1), ("ep2", 1), ("ep2_zero1", 1), ("ep2_and_4", 2)])
def test_tokens_of_experts(scenarios: dict[str, Scenario], name: str, layers: int) -> None:
    """Each rank has eight equal tokens, so that one expert gets all of them and takes its minimum capacity of four."""
    stats = scenarios[name].report.experts
    assert len(stats) == layers
    for layer in stats:
        assert (sorted(layer.routed), sorted(count or 0 for count in layer.tokens)) == ([0, 0, 0, 32], [0, 0, 0, 16])
        assert (layer.top_k, layer.dropped, layer.dead) == (
            1,
            16,
            tuple(e for e, n in enumerate(layer.tokens) if not n),
        )
        assert layer.aux_loss is not None and layer.aux_loss > 0
        assert layer.capacity == 4 * 4, "of four ranks"
        assert layer.empty is not None and layer.empty.share == 3 / 4, "all experts run on the capacity of one"
        assert layer.ep_tokens == () if name == "ep1" else sum(count or 0 for count in layer.ep_tokens) == 16


@AUTOTP.finds("dp, tp", "weights split by rows and columns")
def test_autotp(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["autotp"]
    assert (seen.sizes, seen.places("dp", "tp")) == ({"dp": 2, "tp": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)])
    parameters = seen.parameters(1)
    assert (parameters["1.q_proj.weight"].split, parameters["1.q_proj.weight"].rank_numel) == (("tp",), 32)
    assert (parameters["1.o_proj.bias"].split, parameters["0.weight"].split) == ((), ())


def test_totals_are_those_of_the_model_built_whole(scenarios: dict[str, Scenario]) -> None:
    summaries = {name: seen.report.summary for name, seen in scenarios.items()}
    assert {name: s.params_exact for name, s in summaries.items()} == {n: s.whole for n, s in scenarios.items()}
    assert all(summary.exact_covers_all for summary in summaries.values())


#: MACs of a linear of WIDTH by WIDTH on one token; the others in jobs/on_deepspeed.py are multiples of WIDTH, too.
LINEAR = 8 * 8
MLP = 8 * 33 + 33 * 8
GATE = 8 * 4
RESIDUAL = MLP + 8 * 2  # the dense module, and what weighs it against the experts
WORK = {
    **dict.fromkeys(["zero1", "zero2", "zero3"], 8 * (MLP + 8 * 3)),
    "pipeline": 2 * (2 * 4) * (3 * LINEAR + 8 * 16),  # micro-batches of two sequences of four
    # Of the eight tokens, which choose the same expert, it takes four: its capacity.
    "ep1": 8 * (LINEAR + GATE) + 4 * MLP,
    **dict.fromkeys(["ep2", "ep2_zero1"], 8 * (LINEAR + GATE + RESIDUAL) + 4 * MLP),
    "ep2_and_4": 8 * (LINEAR + 2 * (GATE + RESIDUAL)) + 2 * 4 * MLP,
    "autotp": 8 * 3 * LINEAR,
}


@ZERO.finds(FORWARD)
@PIPELINES.finds(FORWARD)
@MOE.finds(f"{FORWARD}, without padding")
@AUTOTP.finds(FORWARD)
@pytest.mark.parametrize("name", WORK)
def test_useful_forward_work_equals_one_process(scenarios: dict[str, Scenario], name: str) -> None:
    """Experts run on their whole capacity, of which empty slots are not useful, and tokens beyond it are on none; each
    tensor-parallel rank runs all layers that are not split.
    """
    forward = scenarios[name].report.model.forward
    assert forward is not None
    assert (forward.useful_macs, forward.covers_all) == (WORK[name], True)
    assert (forward.macs > WORK[name]) == name.startswith("ep")
    assert (forward.executed_macs > forward.macs) == (name == "autotp")
