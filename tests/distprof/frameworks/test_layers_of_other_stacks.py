"""MoE layers with the modules and signatures of stacks that need CUDA: their tokens are exact, or n/a and named.

The layers compute in their own way; what distprof reads is as in MegaBlocks, FastMoE, Tutel 0.3 and torchtitan 0.3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from support.reports import expert_layer
from torch import Tensor, nn

import distprof
from distprof.frameworks.registry import FrameworkRegistry
from distprof.merge.report import Report
from distprof.model.module_tree import ModuleTree
from distprof.model.moe_layers import find_moe_layers

WIDTH, EXPERTS, TOP_K, TOKENS = 8, 4, 2, 24


def stacked(local: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(local, WIDTH, WIDTH))


def compute(x: Tensor, ids: Tensor, weights: Tensor, matrices: Tensor) -> Tensor:
    return sum((((ids == e) * weights).sum(-1, keepdim=True) * (x @ one) for e, one in enumerate(matrices)), x * 0)


#: What MegaBlocks' modules are made from.
ARGS = SimpleNamespace(
    moe_top_k=TOP_K, moe_num_experts=EXPERTS, hidden_size=WIDTH, ffn_hidden_size=WIDTH, moe_capacity_factor=1
)


class LearnedRouter(nn.Module):
    """MegaBlocks': scores, weights and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.args = ARGS
        self.layer = nn.Linear(WIDTH, EXPERTS, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.layer(x).softmax(-1)
        weights, ids = scores.topk(TOP_K)
        return scores, weights, ids


class GroupedMLP(nn.Module):
    """MegaBlocks' stacked weights; ``sparse``: one expert below the other."""

    def __init__(self, local: int, *, sparse: bool) -> None:
        super().__init__()
        self.args = ARGS
        self.w1 = nn.Parameter(torch.randn(local * WIDTH, WIDTH)) if sparse else stacked(local)


class ParallelDroplessMLP(nn.Module):
    def __init__(self, local: int, *, sparse: bool) -> None:
        super().__init__()
        self.args, self.num_experts, self.top_k = ARGS, EXPERTS, TOP_K
        self.mlp = GroupedMLP(local, sparse=sparse)

    def forward(self, x: Tensor, scores: Tensor, expert_weights: Tensor, top_experts: Tensor) -> Tensor:
        return compute(x, top_experts, expert_weights, self.mlp.w1.reshape(-1, WIDTH, WIDTH))


class ParallelMLP(ParallelDroplessMLP):
    """Drops choices that exceed the capacity."""


class dMoE(nn.Module):
    def __init__(self, local: int = EXPERTS, *, sparse: bool = False) -> None:
        super().__init__()
        self.router, self.experts = LearnedRouter(), ParallelDroplessMLP(local, sparse=sparse)
        self.tokens: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        scores, weights, ids = self.router(x)
        self.tokens = torch.bincount(ids.flatten(), minlength=EXPERTS).tolist()
        y: Tensor = self.experts(x, scores, weights, ids)
        return y


class NaiveGate(nn.Module):
    """FastMoE's: ids and weights, [tokens, k]."""

    def __init__(self) -> None:
        super().__init__()
        self.tot_expert, self.top_k, self.gate = EXPERTS, TOP_K, nn.Linear(WIDTH, EXPERTS)

    def forward(self, inp: Tensor) -> tuple[Tensor, Tensor]:
        weights, ids = self.gate(inp).topk(TOP_K, largest=True, sorted=False)
        return ids, weights.softmax(-1)


class FMoELinear(nn.Module):
    def __init__(self, local: int) -> None:
        super().__init__()
        self.num_expert, self.weight = local, stacked(local)
        self.bias = nn.Parameter(torch.zeros(local, WIDTH))

    def forward(self, inp: Tensor, fwd_expert_count: Tensor) -> Tensor:
        parts = inp.split(fwd_expert_count.tolist())
        return torch.cat([part @ one + bias for part, one, bias in zip(parts, self.weight, self.bias, strict=True)])


class _Expert(nn.Module):
    """FastMoE's experts of one rank, called with their rows in order."""

    def __init__(self, local: int) -> None:
        super().__init__()
        self.htoh4, self.h4toh = FMoELinear(local), FMoELinear(local)

    def forward(self, inp: Tensor, fwd_expert_count: Tensor) -> Tensor:
        y: Tensor = self.h4toh(torch.relu(self.htoh4(inp, fwd_expert_count)), fwd_expert_count)
        return y


class FMoETransformerMLP(nn.Module):
    def __init__(self, local: int = EXPERTS) -> None:
        super().__init__()
        self.num_expert, self.world_size, self.top_k = local, EXPERTS // local, TOP_K
        self.gate, self.experts = NaiveGate(), _Expert(local)
        self.tokens: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        ids, weights = self.gate(x)
        order = ids.flatten().argsort(stable=True)
        counts = torch.bincount(ids.flatten(), minlength=EXPERTS)
        self.tokens = counts.tolist()
        y = self.experts(x[order // TOP_K], counts) * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, order // TOP_K, y)


class LinearTopKGate(nn.Module):
    """Tutel's: it returns the scores of all experts, and the layer chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.top_k, self.wg = TOP_K, nn.Linear(WIDTH, EXPERTS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.wg(x)
        return y


class FusedExpertsNetwork(nn.Module):
    """Tutel's experts, called with their whole capacity: [experts, capacity, width]."""

    def __init__(self, local: int) -> None:
        super().__init__()
        self.local_experts, self.batched_fc1_w = local, stacked(local)

    def forward(self, x: Tensor, ctx: nn.Module) -> Tensor:
        return x @ self.batched_fc1_w


class MOELayer(nn.Module):
    """Tutel's: an expert takes its first choices, up to the capacity; the first choices of all tokens come first."""

    _num_global_experts: Tensor
    group = None
    batch_prioritized_routing, megablocks_size = False, 0

    def __init__(self, local: int = EXPERTS, *, factor: float = 0.75, sharded: int = 1, overlap: int = 1) -> None:
        super().__init__()
        self.register_buffer("_num_global_experts", torch.tensor(EXPERTS))
        self.num_local_experts, self.sharded_count = local, sharded
        self.gates, self.experts = nn.ModuleList([LinearTopKGate()]), FusedExpertsNetwork(local)
        self.factor, self.a2a_ffn_overlap_degree = factor, overlap
        self.tokens: list[int] = []
        self.chosen: list[int] = []

    @property
    def num_global_experts(self) -> int:
        return int(self._num_global_experts)

    def forward(self, x: Tensor) -> Tensor:
        weights, ids = self.gates[0](x).softmax(-1).topk(TOP_K)
        capacity = TOP_K * int(self.factor * -(-len(x) // EXPERTS))
        self.dispatch_count = torch.bincount(ids.flatten(), minlength=EXPERTS).int()
        slots, places = x.new_zeros(EXPERTS, capacity, WIDTH), [0] * EXPERTS
        for expert, token in zip(ids.t().flatten().tolist(), list(range(len(x))) * TOP_K, strict=True):
            if places[expert] < capacity:
                slots[expert, places[expert]] = x[token].detach()
                places[expert] += 1
        self.tokens, self.chosen = places, self.dispatch_count.tolist()
        y = self.experts(slots, self)
        return y.sum((0, 1)) * weights.sum()


class TokenChoiceTopKRouter(nn.Module):
    """torchtitan's: ids and scores, [batch, length, k]."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts, self.top_k, self.gate = EXPERTS, TOP_K, nn.Linear(WIDTH, EXPERTS, bias=False)

    def forward(self, x: Tensor, expert_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weights, ids = self.gate(x).sigmoid().topk(TOP_K)
        return ids, weights


class GroupedExperts(nn.Module):
    """torchtitan's experts of one rank, called with their rows in order."""

    def __init__(self, local: int) -> None:
        super().__init__()
        self.num_experts, self.w1 = local, stacked(local)

    def forward(self, x: Tensor, num_tokens_per_expert: Tensor) -> Tensor:
        parts = x.split(num_tokens_per_expert.tolist())
        return torch.cat([part @ one for part, one in zip(parts, self.w1, strict=True)])


class RoutedExperts(nn.Module):
    """Sends tokens to the experts, and adds up what comes back."""

    def __init__(self, local: int) -> None:
        super().__init__()
        self.inner_experts = GroupedExperts(local)

    def forward(self, x: Tensor, weights: Tensor, ids: Tensor, num_local_tokens_per_expert: Tensor) -> Tensor:
        order = ids.flatten().argsort(stable=True)
        y = self.inner_experts(x[order // TOP_K], num_local_tokens_per_expert) * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, order // TOP_K, y)


class MoE(nn.Module):
    """torchtitan's layer."""

    def __init__(self, local: int = EXPERTS) -> None:
        super().__init__()
        self.router, self.routed_experts = TokenChoiceTopKRouter(), RoutedExperts(local)
        self.tokens: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        ids, weights = self.router(x[None])
        counts = torch.bincount(ids.flatten(), minlength=EXPERTS)
        self.tokens = counts.tolist()
        y: Tensor = self.routed_experts(x, weights, ids, counts)
        return y


def with_capacity() -> dMoE:
    layer = dMoE()
    layer.experts = ParallelMLP(EXPERTS, sparse=False)
    return layer


#: Layers whose tokens are exact, ...
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "megablocks": dMoE,
    "megablocks_sparse": lambda: dMoE(sparse=True),
    "fastmoe": FMoETransformerMLP,
    "torchtitan": MoE,
    "tutel": MOELayer,
}
#: ... and those of which nothing shows them.
UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "megablocks_capacity": with_capacity,
    "tutel_overlapped": lambda: MOELayer(overlap=2),
    "tutel_cut": lambda: MOELayer(sharded=2),
}


@pytest.fixture(scope="module", autouse=True)
def imported_tutel() -> Iterator[None]:
    module: Any = ModuleType("tutel.impls.moe_layer")
    module.MOELayer = MOELayer
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tutel.impls.moe_layer", module)
        yield


@pytest.fixture(scope="module")
def recorded(imported_tutel: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.ModuleDict, Report]:
    torch.manual_seed(0)
    layers = nn.ModuleDict({name: make() for name, make in {**LAYERS, **UNKNOWN}.items()})
    x = torch.randn(TOKENS, WIDTH)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([layer(x).square().mean() for layer in self.layers.values()]).sum()

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with distprof.record(out=tmp_path_factory.mktemp("runs"), name="run", warmup=0, timed=2) as run:
        for _ in range(4):
            model(x).backward()
            optimizer.step()
    return layers, distprof.load(run).report


@pytest.mark.parametrize("name", LAYERS)
def test_tokens_are_exact(recorded: tuple[nn.ModuleDict, Report], name: str) -> None:
    layers, report = recorded
    layer, told = expert_layer(report, f"layers.{name}"), cast_tokens(layers[name])
    assert (layer.steps, layer.top_k, layer.guessed) == (2, TOP_K, False)
    assert list(layer.tokens) == [2 * count for count in told]


def cast_tokens(layer: Any) -> list[int]:
    tokens: list[int] = layer.tokens
    return tokens


def test_choices_capacity_and_drops_of_tutel(recorded: tuple[nn.ModuleDict, Report]) -> None:
    layers, report = recorded
    layer, told = expert_layer(report, "layers.tutel"), layers["tutel"]
    assert isinstance(told, MOELayer)
    assert list(layer.routed) == [2 * count for count in told.chosen]
    assert (layer.dropped, layer.capacity) == (2 * (sum(told.chosen) - sum(told.tokens)), 2 * TOP_K * 4)
    assert layer.dropped, "else nothing is shown"


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_seen_is_named(recorded: tuple[nn.ModuleDict, Report], name: str) -> None:
    layer = expert_layer(recorded[1], f"layers.{name}")
    assert (set(layer.tokens), layer.dropped) == ({None}, None)


@pytest.mark.parametrize(
    "make", [dMoE, lambda local: dMoE(local, sparse=True), FMoETransformerMLP, MoE, MOELayer], ids=[*LAYERS]
)
def test_experts_of_other_ranks_are_counted(make: Callable[[int], nn.Module]) -> None:
    model, tree = nn.Sequential(make(2)), ModuleTree(FrameworkRegistry())
    (layer,) = find_moe_layers(model, tree.adopt(model), tree.rows, FrameworkRegistry().experts, lambda axis: 2)
    assert (layer.name, layer.num_experts, layer.local, layer.ways) == ("0", EXPERTS, 2, 2)
