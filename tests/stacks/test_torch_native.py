"""Tests of torch's own kinds of parallelism on four real ranks: sizes, coordinates, layouts, names and exact totals."""

from __future__ import annotations

import pytest
from support.scenarios import RunScenarios, Scenario
from support.stacks_page import Line

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report

ALL = [(rank,) for rank in range(4)]

DDP, FSDP_1, FSDP_2 = Line("torch", "DDP"), Line("torch", "FSDP 1"), Line("torch", "FSDP 2, DTensor tp")
EXPERT_DTENSORS = Line("torch", "experts as DTensors over ep")
PIPELINING, BY_HAND = Line("torch", "torch pipelining"), Line("torch", "a script's own meshes and groups")


@pytest.fixture(scope="module")
def scenarios(run_scenarios: RunScenarios) -> dict[str, Scenario]:
    return run_scenarios("on_torch.py", ranks=4)


NAMES = [f"{block}.{part}.{of}" for block in (0, 1) for part in ("up", "down") for of in ("weight", "bias")]
NAMES += ["2.weight", "2.bias"]


@DDP.finds("dp", "names without wrappers")
@FSDP_2.finds("dp", "names without wrappers")
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "checkpointed"])
def test_data_parallel(scenarios: dict[str, Scenario], name: str) -> None:
    seen = scenarios[name]
    assert (seen.sizes, seen.places("dp")) == ({"dp": 4}, ALL)
    assert seen.topologies[0].source == "torch"
    assert [list(seen.parameters(rank)) for rank in range(4)] == [NAMES] * 4
    sharded = ("dp",) if name == "fsdp2" else ()
    assert all(parameter.sharded == sharded for parameter in seen.parameters(1).values())


@FSDP_1.finds("dp, dp_replicate, dp_shard", "the parameters in flat ones, tied ones, without padding")
@pytest.mark.parametrize("name", ["fsdp1", "fsdp1_flat", "fsdp1_hybrid"])
def test_fsdp_1_tells_the_parameters_that_lie_in_its_flat_ones(scenarios: dict[str, Scenario], name: str) -> None:
    seen = scenarios[name]
    finer = {"dp_replicate": 2, "dp_shard": 2} if name == "fsdp1_hybrid" else {"dp_shard": 4}
    assert (seen.sizes, seen.places("dp")) == ({"dp": 4, **finer}, ALL)
    parameters = seen.parameters(1)
    inner = ["1.up.weight", "1.up.bias", "1.down.weight", "1.down.bias"]
    assert list(parameters) == ["0.weight", *inner, "2.weight"]
    assert all((p.sharded, p.rank_numel) == (("dp",), p.global_numel) for p in parameters.values())
    assert (parameters["2.weight"].tied_to, parameters["1.up.weight"].global_numel) == ("0.weight", 256)
    whole = sum(p.local_numel for rank in range(4) for p in seen.parameters(rank).values() if p.name in inner)
    assert whole == 552, "the four pieces of one flat parameter, without its padding"


@FSDP_2.finds("tp", "parts of every parameter")
def test_tensor_parallel(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["tp"]
    assert (seen.sizes, seen.places("tp", "dp")) == ({"tp": 4}, [(rank, 0) for rank in range(4)])
    up, head = seen.parameters(2)["0.up.weight"], seen.parameters(2)["2.weight"]
    assert (up.rank_numel, up.global_numel, up.sharded) == (64, 256, ("tp",))
    assert (head.rank_numel, head.global_numel, head.sharded) == (24, 24, ())


@FSDP_2.finds("both at once")
def test_fsdp_2_and_tensor_parallel(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["fsdp2_tp"]
    assert (seen.sizes, seen.places("dp", "tp")) == ({"dp": 2, "tp": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)])
    up = seen.parameters(2)["0.up.weight"]
    assert (up.local_numel, up.rank_numel, up.global_numel, up.sharded) == (64, 128, 256, ("dp", "tp"))


@PIPELINING.finds("pp", "stages", "global numbers of layers that each stage numbers from 0")
def test_a_pipeline_of_stages_made_by_hand(scenarios: dict[str, Scenario]) -> None:
    """Both stages number their two layers from 0: layer 0 of the second stage is layer 2 of the model."""
    seen = scenarios["pipeline"]
    assert (seen.sizes, seen.places("pp", "dp")) == ({"dp": 2, "pp": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)])
    assert seen.topologies[2].sources["pp"] == "torch.distributed.pipelining"
    assert [[(s.root, s.index, s.count) for s in t.stages] for t in seen.topologies] == [
        [(0, i // 2, 2)] for i in range(4)
    ]
    assert top_modules(seen.report) == [("0", "Block"), ("1", "Linear"), ("2", "Block"), ("3", "Block")]
    assert any("0 of stage 1 is 2" in note for note in seen.report.run.notes)


@PIPELINING.finds("virtual stages")
def test_virtual_stages(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["virtual_stages"]
    assert (seen.sizes, seen.places("dp", "pp")) == ({"dp": 2, "pp": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)])
    stages = [[(stage.root, stage.index, stage.count) for stage in topology.stages] for topology in seen.topologies]
    assert stages == [[(0, pp, 4), (1, pp + 2, 4)] for _ in (0, 1) for pp in (0, 1)]
    assert top_modules(seen.report) == [(str(number), "SlowBlock") for number in range(4)], "one on each stage"


@PIPELINING.finds("bubble of each stage")
def test_bubble_of_an_interleaved_schedule(scenarios: dict[str, Scenario]) -> None:
    """Two stages x four micro-batches x (30 + 60) ms on each rank; other work of a rank is small."""
    rows = scenarios["virtual_stages"].report.pipeline
    assert [(row.stage, row.virtual_stages, row.micro_batches) for row in rows] == [(0, 2, 4), (1, 2, 4)]
    for row in rows:
        assert 240e6 <= row.forward_ns < 420e6 and 480e6 <= row.backward_ns < 840e6
        everything = row.forward_ns + row.backward_ns + row.waiting_ns
        assert row.bubble == pytest.approx(1 - 720e6 / everything, abs=0.15)
        assert row.ideal_bubble == pytest.approx(1 / 9), "by the order of its schedule, if nothing else took time"
        assert everything > 720e6 / (1 - 1 / 9), "no rank can be faster than that"


@PIPELINING.misses("the global numbers if a stage is missing: layers are named by stage")
def test_with_a_dead_stage_layers_are_told_apart_by_stage(scenarios: dict[str, Scenario]) -> None:
    alive = analyse(run_of_shards([scenarios["virtual_stages"].shards[0]]))
    assert top_modules(alive) == [("0 [stage 0]", "SlowBlock"), ("0 [stage 2]", "SlowBlock")]
    assert any("(nothing was recorded of stages 1, 3)" in note for note in alive.run.notes)


def top_modules(report: Report) -> list[tuple[str, str]]:
    """Returns labels and classes of the modules that are numbered in the root itself."""
    return [(module.label, module.class_name) for module in report.modules if module.name.isdecimal()]


@FSDP_2.finds("axes of unknown dimension names, by what is split along them")
@pytest.mark.parametrize("name", ["unknown_dimension_names", "no_names"])
def test_axes_of_unknown_dimension_names(scenarios: dict[str, Scenario], name: str) -> None:
    seen = scenarios[name]
    dp = {"unknown_dimension_names": 2, "no_names": 1}[name]
    assert seen.sizes == {axis: size for axis, size in (("dp", dp), ("tp", 4 // dp)) if size > 1}
    assert seen.topologies[3].sources["tp"] == "parameters"
    assert (seen.topologies[3].notes, list(seen.parameters(1))) == ((), NAMES)


@DDP.misses("a group over a part of the ranks: assumed, and reported")
def test_manual_groups_leave_dp_assumed(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["groups_by_hand"]
    assert (seen.sizes, seen.topologies[0].source) == ({"dp": 4}, "assumed")
    assert "torch says dp 2; " in seen.topologies[0].notes[0]
    assert [group.ranks for group in seen.topologies[3].groups] == [(), (2, 3)]


@EXPERT_DTENSORS.finds("ep", "tokens, rows and parameters of experts that are one DTensor over ep, active parameters")
def test_experts_that_are_one_dtensor(scenarios: dict[str, Scenario]) -> None:
    """Each of four ranks has 16 tokens, and each of these chooses two of four experts, which nothing states."""
    seen = scenarios["dtensor_experts"]
    assert (seen.sizes["ep"], seen.places("ep")) == (2, [(0,), (1,), (0,), (1,)])
    (layer,) = seen.report.experts
    tokens, expert = seen.truth, 8 * 8
    assert (list(layer.tokens), layer.expert_ranks) == (tokens, ((0, 2), (0, 2), (1, 3), (1, 3)))
    assert seen.report.summary.params_exact == seen.whole
    model = seen.report.model
    assert (model.active_params, model.active_is_measured) == (seen.whole - 4 * expert + 2 * expert, True)


@BY_HAND.finds("tp by the descriptions of groups")
@BY_HAND.misses("that plain tensors are split: counted as copies, and reported")
def test_groups_say_by_their_names_what_they_are_for(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["cut_by_hand"]
    assert (seen.sizes, seen.places("tp", "dp")) == ({"dp": 2, "tp": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)])
    assert seen.topologies[1].sources == {"tp": "process_groups", "dp": "assumed"}
    doubt = "tp 2, but no parameter shows that it is cut over tp ranks: all are counted as copies"
    assert seen.topologies[1].notes == (doubt,)


@BY_HAND.finds("that a `fake` dimension is no axis")
def test_an_axis_on_a_fake_backend_is_none(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["fake_axis"]
    assert (seen.sizes, seen.places("dp", "ep")) == ({"dp": 4}, [(rank, 0) for rank in range(4)])
    assert seen.topologies[0].meshes[0].names == ("efsdp", "ep")


@BY_HAND.misses("one topology for two models on different meshes: both are named")
def test_two_models_on_different_meshes_are_named(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["two_models"]
    assert seen.sizes == {"dp": 2, "tp": 2}
    assert any("device_mesh says tp 2, device_mesh says tp 4" in note for note in seen.topologies[1].notes)
    own = [[(axes.root, axes.sizes["tp"], axes.coordinates["tp"]) for axes in t.roots] for t in seen.topologies]
    assert own == [[(1, 4, rank)] for rank in range(4)]
    assert seen.parameters(1, root=1)["0.up.weight"].rank_numel == 64


@BY_HAND.finds("tp of meshes over half of the world each")
def test_a_mesh_over_half_the_world_leaves_the_rest_assumed(scenarios: dict[str, Scenario]) -> None:
    seen = scenarios["two_halves"]
    assert (seen.sizes, seen.places("dp", "tp")) == ({"dp": 2, "tp": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)])
    assert seen.topologies[2].sources == {"tp": "device_mesh", "dp": "assumed"}


def test_totals_are_those_of_the_model_built_whole(scenarios: dict[str, Scenario]) -> None:
    summaries = {name: seen.report.summary for name, seen in scenarios.items()}
    assert {name: s.params_exact for name, s in summaries.items()} == {n: s.whole for n, s in scenarios.items()}
    assert all(summary.exact_covers_all for summary in summaries.values())


FORWARD, MEMORY = "forward work of the model", "memory of every rank"
ROWS = 2  # of a rank's batch; a pipeline's has 4
WORK = {
    **dict.fromkeys(
        ["ddp", "fsdp2", "checkpointed", "tp", "fsdp2_tp", "unknown_dimension_names", "no_names", "two_halves"],
        ROWS * (4 * 256 + 24),
    ),
    **dict.fromkeys(["fsdp1", "fsdp1_flat", "fsdp1_hybrid"], ROWS * (64 + 2 * 256 + 64)),
    "two_models": 2 * ROWS * (4 * 256 + 24),
    "pipeline": 4 * (3 * 512 + 64),
    "virtual_stages": 4 * 4 * 512,
}


@DDP.finds(FORWARD)
@FSDP_1.finds(FORWARD)
@FSDP_2.finds(FORWARD)
@PIPELINING.finds(FORWARD)
@BY_HAND.finds(f"{FORWARD}, of two models each by its own mesh")
@pytest.mark.parametrize("name", WORK)
def test_forward_work_equals_one_process(scenarios: dict[str, Scenario], name: str) -> None:
    """The work does not depend on how the ranks are parallel; repeated work of tensor-parallel ranks counts once."""
    forward = scenarios[name].report.model.forward
    assert forward is not None
    assert (forward.macs, forward.useful_macs, forward.covers_all) == (WORK[name], WORK[name], True)
    assert (forward.executed_macs > forward.macs) == ("tp" in scenarios[name].sizes), "the head is whole on each"


@DDP.finds(MEMORY)
@FSDP_2.finds(MEMORY)
@pytest.mark.parametrize(("name", "numel"), [("ddp", 4 * 1131), ("fsdp2", 1131), ("tp", 4 * (2 * 144 + 27))])
def test_memory_of_all_ranks_is_that_of_their_own_parts(scenarios: dict[str, Scenario], name: str, numel: int) -> None:
    """Memory is whole on each rank under DDP; shards add up to the whole; tensor-parallel blocks have a quarter and
    whole biases.
    """
    rows = scenarios[name].report.ranks
    assert sum(row.parameter_bytes or 0 for row in rows) == 4 * numel
    assert all((row.gradient_bytes, row.optimizer_bytes) == (row.parameter_bytes, 0) for row in rows)
