"""MoE layers of an nn.ModuleList of experts: detection, number of experts, and placement."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

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
