"""MoE layers of any stack: found by their weights, the number of their experts, and where these live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.worlds import rank_of
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.module_tree import ModuleTree
from distprof.model.moe_layers import MoeLayer, find_moe_layers, place_layers
from distprof.records import Topology
from distprof.topology.axes import AxisEvidence, resolve


class MoE(nn.Module):
    """A layer of ``local`` experts, with ``attributes``."""

    def __init__(self, local: int, name: str = "experts", router: nn.Module | None = None, **attributes: Any) -> None:
        super().__init__()
        if router is not None:
            self.gate = router
        self.add_module(name, nn.ModuleList(nn.Linear(2, 2) for _ in range(local)))
        for attribute, value in attributes.items():
            setattr(self, attribute, value)


def find(model: nn.Module, ep: int = 1) -> list[MoeLayer]:
    return found(model, ModuleTree(FrameworkRegistry()), ep)


def found(model: nn.Module, tree: ModuleTree, ep: int = 1) -> list[MoeLayer]:
    return list(find_moe_layers(model, tree.adopt(model), tree.rows, FrameworkRegistry().experts, lambda axis: ep))


def test_layer_and_its_experts() -> None:
    model = nn.Sequential(nn.Linear(2, 2), MoE(4))
    tree = ModuleTree(FrameworkRegistry())
    (layer,) = found(model, tree)
    assert (layer.name, tree.rows[layer.row].class_name, layer.num_experts) == ("1", "MoE", 4)
    assert [tree.rows[row].name for row in layer.expert_rows] == [f"1.experts.{number}" for number in range(4)]


@pytest.mark.parametrize("name", ["experts", "expert_list", "local_experts", "Experts"])
def test_list_names(name: str) -> None:
    assert len(find(nn.Sequential(MoE(4, name)))) == 1


def test_not_a_list_of_experts() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])  # of two kinds
            self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
            self.no_experts = nn.ModuleList()

    assert find(Experts()) == []
    assert find(nn.ModuleDict({"experts": nn.Linear(2, 2)})) == []


def test_order_of_nested_layers() -> None:
    model = nn.ModuleList(nn.Sequential(MoE(2), nn.Linear(2, 2)) for _ in range(3))
    assert [layer.name for layer in find(model)] == ["0.0", "1.0", "2.0"]


@pytest.mark.parametrize("attribute", ["num_experts", "n_experts", "n_routed_experts", "num_global_experts"])
def test_global_number_by_the_layer(attribute: str) -> None:
    attributes: dict[str, Any] = {attribute: 8}
    (layer,) = find(nn.Sequential(MoE(2, **attributes)))
    assert (layer.num_experts, layer.ways) == (8, 4)


def test_global_number_by_router_or_group() -> None:
    (by_router,) = find(nn.Sequential(MoE(2, router=nn.Linear(2, 8))))
    assert (by_router.num_experts, by_router.ways) == (8, 4)
    (inner_router,) = find(nn.Sequential(MoE(2, router=nn.Sequential(nn.Linear(2, 8)))))
    assert inner_router.num_experts == 8
    (by_group,) = find(nn.Sequential(MoE(2)), ep=4)
    assert (by_group.num_experts, by_group.ways) == (8, 4)


@pytest.mark.parametrize("nonsense", [0, 1, 3, -8, "8", 8.0, True, None])
def test_implausible_number_is_ignored(nonsense: Any) -> None:
    (layer,) = find(nn.Sequential(MoE(2, num_experts=nonsense)))
    assert layer.num_experts == 2


def ep_of_four(rank: int, world_size: int = 4) -> Topology:
    return resolve([AxisEvidence("x", "ep", (0, 1, 2, 3))], rank, world_size)


def pure(rank: int, world_size: int) -> Topology:
    return resolve([], rank, world_size)


def test_experts_are_contiguous_by_ep_rank() -> None:
    layers = find(nn.Sequential(MoE(2, num_experts=8)), ep=4)
    placed, topology = place_layers(layers, ep_of_four(3), 3)
    assert placed[0].local_experts == (6, 7)
    assert topology == ep_of_four(3)


def test_ep_is_assumed_from_experts() -> None:
    layers = find(nn.Sequential(MoE(2, num_experts=8)))
    placed, topology = place_layers(layers, pure(6, 8), 6)
    assert placed[0].local_experts == (4, 5)
    assert (topology.sizes["ep"], topology.coordinates["ep"]) == (4, 2)
    assert "2 of 8 experts" in topology.notes[-1] and "set_topology(ep=...)" in topology.notes[-1]


def test_layer_with_all_experts() -> None:
    layers = find(nn.Sequential(MoE(4), MoE(2, num_experts=8)), ep=1)
    placed, _ = place_layers(layers, ep_of_four(1), 1)
    assert [layer.local_experts for layer in placed] == [(0, 1, 2, 3), (2, 3)]


def test_without_layers() -> None:
    assert place_layers([], pure(0, 8), 0) == ((), pure(0, 8))


def test_ep_that_does_not_divide_the_world() -> None:
    """A single rank with 2 of 8 experts (a part of a model under test) cannot be one of 4 ep ranks."""
    layers = find(nn.Sequential(MoE(2, num_experts=8)))
    placed, topology = place_layers(layers, pure(0, 1), 0)
    assert placed[0].local_experts == (0, 1)
    assert topology.sizes["ep"] == 1


class Stacked(nn.Module):
    """Experts in one module with stacked weights, as in transformers and torchtitan."""

    def __init__(self, local: int, **attributes: int) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.zeros(local, 2, 3)), nn.Parameter(torch.zeros(local, 3, 2))
        self.bias = nn.Parameter(torch.zeros(local, 3))
        for attribute, value in attributes.items():
            setattr(self, attribute, value)


class StackedExperts(Stacked):
    pass


def test_stacked_experts() -> None:
    block = nn.ModuleDict({"gate": nn.Linear(2, 4), "experts": StackedExperts(4)})
    (layer,) = find(nn.Sequential(block))
    assert (layer.name, layer.num_experts, layer.local, layer.expert_rows) == ("0", 4, 4, ())
    (placed,), _ = place_layers([layer], pure(0, 1), 0)
    assert (placed.local_experts, placed.counted) == ((0, 1, 2, 3), False)


def test_stacked_experts_with_a_global_number() -> None:
    (layer,) = find(nn.Sequential(nn.ModuleDict({"experts": StackedExperts(2, num_experts=8)})))
    (placed,), _ = place_layers([layer], ep_of_four(2), 2)
    assert placed.local_experts == (4, 5)


def test_is_counted() -> None:
    layers = find(nn.ModuleDict({"a": nn.ModuleDict({"experts": StackedExperts(2)}), "b": MoE(2)}))
    placed, _ = place_layers(layers, pure(0, 1), 0)
    assert [(layer.name, layer.counted) for layer in placed] == [("a", False), ("b", True)]


def test_top_k() -> None:
    router = nn.Linear(2, 4)
    router.top_k = 2  # type: ignore[assignment]
    assert [layer.top_k for layer in find(nn.Sequential(MoE(4, top_k=3), MoE(4, router=router), MoE(4)))] == [3, 2, 0]


# ---- found by weights ------------------------------------------------------------------------------------------------


def ffn() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


class Layer(nn.Module):
    """A layer with these children, or parameters."""

    def __init__(self, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def one(model: nn.Module) -> MoeLayer:
    (layer,) = find(nn.Sequential(model))
    return layer


def test_experts_of_any_name_beside_a_router() -> None:
    listed = one(Layer(gate=nn.Linear(8, 4), ffns=nn.ModuleList(ffn() for _ in range(4))))
    assert (listed.name, listed.num_experts, len(listed.expert_rows), listed.guessed) == ("0", 4, 4, True)
    named = one(Layer(router=nn.Linear(8, 3), blocks=nn.ModuleDict({name: ffn() for name in "abc"})))
    assert (named.num_experts, len(named.expert_rows), named.guessed) == (3, 3, True)
    assert not one(Layer(gate=nn.Linear(8, 4), experts=nn.ModuleList(ffn() for _ in range(4)))).guessed


def test_weights_in_the_layer_itself() -> None:
    layer = one(Layer(gate=nn.Linear(8, 4), w1=weights(4, 8, 16), w2=weights(4, 16, 8), bias=weights(8)))
    assert (layer.num_experts, layer.local, layer.own, layer.guessed) == (4, 4, ("w1", "w2"), True)
    assert (layer.holder, layer.parameter_rows) == (layer.row, ())


def test_a_layer_that_is_named_after_experts() -> None:
    """Beside other layers it is one of them, not the experts of the module that holds all."""
    named = Layer(router=nn.Linear(8, 4), weight=weights(4, 8, 8))
    found = find(nn.ModuleDict({"first": MoE(4), "expert_choice": named}))
    assert [(layer.name, layer.num_experts) for layer in found] == [("first", 4), ("expert_choice", 4)]


def test_lists_of_parameters() -> None:
    lists = {name: nn.ParameterList(weights(8, 16) for _ in range(4)) for name in ("up", "down")}
    layer = one(Layer(router=nn.Linear(8, 4), **lists))
    assert (layer.num_experts, layer.local, len(layer.part_rows), layer.guessed) == (4, 4, 1, True)


def test_experts_that_live_elsewhere_are_none() -> None:
    class Sparse(Layer):
        def __init__(self) -> None:
            super().__init__(gate=nn.Linear(8, 4))
            self.experts = nn.ModuleList([None, None, ffn(), ffn()])  # type: ignore[list-item]

    layer = one(Sparse())
    assert (layer.num_experts, layer.ids, layer.ways) == (4, (2, 3), 2)
    placed, topology = place_layers([layer], pure(0, 2), 0)
    assert (placed[0].local_experts, topology.coordinates["ep"]) == ((2, 3), 1)


def test_a_router_with_two_names_is_read() -> None:
    router = Layer(weight=weights(4, 8))
    layer = one(Layer(router=router, gate=router, experts=StackedExperts(4)))
    assert layer.router == 2  # its first row, as in the tree of modules


def test_routers_that_are_no_linear_layers() -> None:
    class TopKRouter(nn.Linear):
        top_k = 2

    layer = one(Layer(router=TopKRouter(8, 4), experts=StackedExperts(4)))
    assert (layer.top_k, layer.read_router is not None) == (2, True)
    assert one(Layer(router=nn.Linear(8, 4), experts=StackedExperts(4))).read_router is None


@pytest.mark.parametrize("rows", [5, 16])
def test_routers_that_also_choose_what_is_no_expert(rows: int) -> None:
    """A shared expert, or one that computes nothing, has a row of its own; ``num_experts`` has the others."""

    class TopKRouter(Layer):
        num_experts = 4

    router = TopKRouter(weight=weights(rows, 8))
    layer = one(Layer(router=router, experts=StackedExperts(4)))
    assert (layer.num_experts, layer.router >= 0, layer.ways) == (4, True, 1)


def test_local_weights_of_experts_whose_router_has_more_rows() -> None:
    layer = one(Layer(router=Layer(gate=nn.Linear(8, 4)), experts=StackedExperts(2, num_experts=2)))
    assert (layer.num_experts, layer.local, layer.ways) == (4, 2, 2)


def test_several_modules_with_weights_of_the_same_experts() -> None:
    layer = one(Layer(input_experts=StackedExperts(4), output_experts=StackedExperts(4), router=nn.Linear(8, 4)))
    assert (layer.num_experts, len(layer.part_rows)) == (4, 1)


def test_matrices_one_below_the_other() -> None:
    class FlatExperts(Layer):
        num_experts = 4

    layer = one(Layer(router=nn.Linear(8, 4), experts=FlatExperts(mlp=Layer(w1=weights(64, 8), w2=weights(64, 8)))))
    assert (layer.num_experts, layer.local) == (4, 4)


def test_a_model_and_its_head_are_no_layer() -> None:
    layers = nn.ModuleList(ffn() for _ in range(4))
    assert find(Layer(layers=layers, head=nn.Linear(8, 4))) == []
    assert find(Layer(layers=layers, gate=nn.Linear(8, 12))) == []
    assert find(Layer(conv=nn.Conv1d(4, 4, 3), head=nn.Linear(4, 4))) == []
    assert find(Layer(recurrent=weights(4, 2, 2), proj=nn.Linear(8, 8), out=nn.Linear(8, 4))) == []


# ---- inside wrappers -------------------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """As peft's wrapper of a module whose parameters it adapts."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 2, bias=False)})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)


@pytest.mark.parametrize("wrap", [checkpoint_wrapper, Adapter, torch.compile])
@pytest.mark.parametrize("whole", [False, True])
def test_wrapped_experts_and_layers(wrap: Callable[[nn.Module], nn.Module], whole: bool) -> None:
    router, experts = Layer(weight=weights(4, 8)), StackedExperts(4)
    model = wrap(Layer(router=router, experts=experts)) if whole else Layer(router=router, experts=wrap(experts))
    (layer,) = find(nn.Sequential(model))
    assert (layer.num_experts, layer.local, layer.router >= 0, layer.guessed) == (4, 4, True, False)


@pytest.mark.parametrize("use_orig_params", [False, True])
def test_experts_in_flat_parameters_of_fsdp(use_orig_params: bool) -> None:
    with rank_of(2):
        router, experts = Layer(weight=weights(4, 8)), StackedExperts(4)
        model = FullyShardedDataParallel(
            nn.Sequential(Layer(router=router, experts=experts)),
            use_orig_params=use_orig_params,
            device_id=torch.device("cpu"),
        )
        (layer,) = find(model)
    assert (layer.num_experts, layer.local, layer.router >= 0) == (4, 4, True)


def test_experts_that_zero_3_has_emptied() -> None:
    experts = StackedExperts(4)
    for parameter in experts.parameters():
        parameter.ds_shape, parameter.data = parameter.shape, torch.empty(0)  # type: ignore[attr-defined]
    layer = one(Layer(router=nn.Linear(8, 4), experts=experts))
    assert (layer.num_experts, layer.local) == (4, 4)


@pytest.mark.parametrize(("cut", "axis", "ways"), [(0, "ep", 2), (1, "tp", 1), (-1, "tp", 1), (0, "dp", 1)])
def test_experts_that_are_cut(cut: int, axis: str, ways: int) -> None:
    with rank_of(2):
        mesh = init_device_mesh("cpu", (2,), mesh_dim_names=(axis,))
        experts = StackedExperts(4)
        for name, parameter in [*experts.named_parameters()]:
            where = Shard(cut % parameter.dim()) if parameter.dim() > 2 else Replicate()
            whole = distribute_tensor(parameter.data, mesh, [where], src_data_rank=None)
            setattr(experts, name, nn.Parameter(whole))
        layer = one(Layer(router=nn.Linear(8, 4), experts=experts))
    assert (layer.num_experts, layer.ways) == (4, ways)


def test_modules_that_fsdp_2_gave_a_class_of_its_own() -> None:
    """fully_shard() derives the class in a package of torch's."""

    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Parameter(torch.ones(4, 8, 2)), nn.Parameter(torch.ones(4, 2, 8))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(2, 4, bias=False), Stacked()

    with rank_of(1):
        moe, mesh = Layer(), init_device_mesh("cpu", (1,))
        for module in (moe.experts, moe.gate, moe):
            fully_shard(module, mesh=mesh)
        assert type(moe.experts).__module__.startswith("torch.")
        (layer,) = find(nn.Sequential(moe))
        assert (layer.name, layer.num_experts) == ("0", 4)
