"""Records of parameters: names, sizes, ties and splits."""

from __future__ import annotations

from support.worlds import rank_of
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from distprof.model.registry import ModelRegistry
from distprof.rank.identity import Identity
from distprof.records import ExpertLayers, Parameter, Parameters, Record, Topology, Tree
from distprof.topology.declared import DeclaredTopology, declare
from distprof.topology.meshes import MeshRecorder


def models(rank: int = 0, world_size: int = 1) -> ModelRegistry:
    return ModelRegistry(Identity(rank, world_size, rank, world_size, 0), MeshRecorder())


def parameters(model: nn.Module, *, world_size: int = 1) -> tuple[Parameter, ...]:
    _, records = models(world_size=world_size).adopt(model)
    return last(records).parameters


def last(records: list[Record]) -> Parameters:
    return [record for record in records if isinstance(record, Parameters)][-1]


def by_name(record: Parameters) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in record.parameters}


def test_fields_of_a_parameter() -> None:
    model = nn.Sequential(nn.Linear(4, 3).half(), nn.Linear(3, 2))
    model[1].bias.requires_grad_(False)
    weight, _, _, bias = parameters(model)
    assert weight == Parameter("0.weight", 1, 0, 12, 12, 12, "float16", 2)
    assert bias == Parameter("1.bias", 2, 0, 2, 2, 2, "float32", 4, trainable=False)


def test_parameter_that_is_none() -> None:
    assert [p.name for p in parameters(nn.Linear(2, 2, bias=False))] == ["weight"]


def test_tied_weights() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False)})
    model["head"].weight = model["embed"].weight
    assert [(p.name, p.tied_to) for p in parameters(model)] == [("embed.weight", ""), ("head.weight", "embed.weight")]


def test_shared_module() -> None:
    shared = nn.Linear(2, 2, bias=False)
    found = parameters(nn.Sequential(shared, shared))
    assert [(p.name, p.tied_to, p.row) for p in found] == [("0.weight", "", 1), ("1.weight", "0.weight", 2)]


def test_ddp_prefix() -> None:
    with rank_of(2):
        found = parameters(DistributedDataParallel(nn.Sequential(nn.Linear(2, 2, bias=False))), world_size=2)
    assert [(p.name, p.tied_to) for p in found] == [("0.weight", "")]


def test_sizes_under_fsdp() -> None:
    with rank_of(4):
        model = nn.Sequential(nn.Linear(8, 8, bias=False))
        fully_shard(model, mesh=init_device_mesh("cpu", (4,), mesh_dim_names=("dp",)))
        (weight,) = parameters(model, world_size=4)
    assert (weight.local_numel, weight.rank_numel, weight.global_numel) == (16, 64, 64)


class MoE(nn.Module):
    def __init__(self, num_experts: int, local: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gate = nn.Linear(2, num_experts, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(2, 2, bias=False)) for _ in range(local))


def test_only_experts_are_split_over_ep() -> None:
    found = parameters(nn.Sequential(MoE(num_experts=8, local=2)), world_size=4)
    assert {p.name: p.split for p in found} == {
        "0.gate.weight": (),
        "0.experts.0.0.weight": ("ep",),
        "0.experts.1.0.weight": ("ep",),
    }


def test_layer_with_all_experts_is_not_split() -> None:
    assert all(p.split == () for p in parameters(nn.Sequential(MoE(num_experts=2, local=2))))


def test_model_inside_a_larger_one_counts_once() -> None:
    """A model runs alone, then wrapped: parameters that two roots share are tied to the first."""
    known, inner = models(), nn.Linear(2, 2)
    _, first = known.adopt(inner)
    _, second = known.adopt(nn.Sequential(inner, nn.Linear(2, 3)))
    counted = [p for records in (first, second) for p in last(records).parameters if not p.tied_to]
    assert sum(p.rank_numel for p in counted) == 6 + 9


def test_each_record_has_all_parameters_of_a_root() -> None:
    """A called module without an owner joins its caller's root; the last record of a root holds."""
    known, model = models(), nn.Sequential(nn.Linear(2, 2))
    known.adopt(model)
    row, records = known.adopt(nn.Linear(3, 3), caller=1)
    assert row == 2
    assert not any(isinstance(record, Parameters) for record in records), "once an iteration is enough"
    (record,) = known.late_records()
    assert isinstance(record, Parameters)
    assert list(known.late_records()) == []
    assert record.root == 0
    assert list(by_name(record)) == ["0.weight", "0.bias", "0.<Linear>.weight", "0.<Linear>.bias"]


def test_joining_module_without_parameters() -> None:
    """A loss or an activation that is made in the forward that calls it."""
    known = models()
    known.adopt(nn.Linear(2, 2))
    _, records = known.adopt(nn.ReLU(), caller=0)
    assert not any(isinstance(record, Parameters) for record in (*records, *known.late_records()))


def test_reused_id_ties_nothing() -> None:
    """Models that are made, run and freed one after the other have the same addresses."""
    known = models()
    for number in range(50):
        kind = type(f"Linear{number}", (nn.Linear,), {})  # another class, else it would count as the same model
        _, records = known.adopt(kind(64, 64))
        assert all(not parameter.tied_to for parameter in last(records).parameters)


def test_lazy_parameters_are_left_out() -> None:
    assert [p.name for p in parameters(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)))] == ["1.weight", "1.bias"]


def test_first_model_writes_tree_parameters_and_topology() -> None:
    row, records = models(rank=1, world_size=2).adopt(nn.Linear(2, 2))
    assert row == 0
    assert [type(record) for record in records] == [Tree, Parameters, Topology]
    topology = records[-1]
    assert isinstance(topology, Topology) and topology.source == "assumed" and topology.coordinates["dp"] == 1


def test_layers_are_recorded_again_when_they_move() -> None:
    known = models(rank=3, world_size=4)
    _, records = known.adopt(nn.Sequential(MoE(num_experts=8, local=2)))
    (layers,) = (record for record in records if isinstance(record, ExpertLayers))
    assert layers.layers[0].local_experts == (6, 7)  # by rank modulo 4, which the topology marks as assumed
    assert list(known.place_records()) == []
    declare(DeclaredTopology({"ep": 4, "dp": 4}, {"ep": 0}))
    try:
        topology, moved = known.place_records()
    finally:
        declare(None)
    assert isinstance(topology, Topology) and topology.source == "declared"
    assert isinstance(moved, ExpertLayers) and moved.layers[0].local_experts == (0, 1)


def test_invalid_declaration_is_ignored_with_a_note() -> None:
    declare(DeclaredTopology({"tp": 3}))
    try:
        _, records = models(world_size=4).adopt(nn.Linear(2, 2))
    finally:
        declare(None)
    topology = records[-1]
    assert isinstance(topology, Topology) and topology.source == "assumed"
    assert "set_topology was ignored" in topology.notes[0]


def test_kept_alike() -> None:
    """DDP keeps all but ignored parameters alike; FSDP 2 and tensor parallelism those that are DTensors."""
    with rank_of(2):
        inner = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sequential(nn.Linear(2, 2, bias=False)))
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(inner, ["1.0.weight"])
        sharded = nn.Linear(2, 2, bias=False)
        fully_shard(sharded)
        model = nn.ModuleDict(
            {"ddp": DistributedDataParallel(inner), "fsdp": sharded, "own": nn.Linear(2, 2, bias=False)}
        )
        _, records = models().adopt(model)
    kept = {parameter.name: parameter.kept_alike for parameter in last(records).parameters}
    assert kept == {"ddp.0.weight": True, "ddp.1.0.weight": False, "fsdp.weight": True, "own.weight": False}
