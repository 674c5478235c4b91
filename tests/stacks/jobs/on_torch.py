"""torch's own kinds of parallelism, on four ranks."""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

WIDTH = 8
STEPS = 3  # one is counted, in the second the ranks settle, and the third is used


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(torch.relu(self.up(x)))
        return y


def model() -> nn.Sequential:
    return nn.Sequential(Block(), Block(), nn.Linear(WIDTH, 3))


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


WHOLE = size(model())


def train(module: nn.Module, x: Tensor | None = None) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(STEPS):
        module(torch.ones(2, WIDTH) if x is None else x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def ddp() -> int:
    train(DistributedDataParallel(model()))
    return WHOLE


def fsdp1(use_orig_params: bool, strategy: ShardingStrategy) -> int:
    """Trains with nested wrappers and a tied head."""
    how: dict[str, Any] = {"use_orig_params": use_orig_params, "sharding_strategy": strategy}
    how["device_id"] = torch.device("cpu")
    inner = FullyShardedDataParallel(Block(), use_orig_params=use_orig_params, device_id=torch.device("cpu"))
    first, last = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
    last.weight = first.weight
    if strategy is ShardingStrategy.HYBRID_SHARD:
        how["device_mesh"] = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp_replicate", "dp_shard"))
    train(FullyShardedDataParallel(nn.Sequential(first, inner, last), **how))
    return WIDTH * WIDTH + size(Block())


def fsdp2() -> int:
    sharded = model()
    for block in sharded:
        fully_shard(block)
    fully_shard(sharded)
    train(sharded)
    return WHOLE


def split(module: nn.Sequential, mesh: DeviceMesh) -> nn.Sequential:
    """Splits blocks over tensor-parallel ranks; the head is whole on each."""
    for block in list(module)[:2]:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return module


def tp(names: tuple[str] | None = ("tp",)) -> int:
    train(split(model(), init_device_mesh("cpu", (4,), mesh_dim_names=names)))
    return WHOLE


def fsdp2_tp(names: tuple[str, str] = ("dp", "tp")) -> int:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=names)
    sharded = split(model(), mesh[names[1]])
    for block in (*list(sharded)[:2], sharded):
        fully_shard(block, mesh=mesh[names[0]])
    x = torch.ones(2, WIDTH)
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.01, foreach=False)
    for _ in range(STEPS):
        sharded(x).sum().backward()
        optimizer.step()
    return WHOLE


def pipeline() -> int:
    """Runs two stages by hand, each with layers numbered from 0, on two data-parallel replicas."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "dp"))
    group, index = mesh["pp"].get_group(), mesh["pp"].get_local_rank()
    module = nn.Sequential(Block(), nn.Linear(WIDTH, WIDTH)) if index == 0 else nn.Sequential(Block(), Block())
    stage = PipelineStage(module, index, 2, torch.device("cpu"), group=group)
    schedule = ScheduleGPipe(stage, 2, loss_fn=lambda y, _: y.sum())
    steps(schedule, [module], first=index == 0, last=index == 1)
    return 3 * size(Block()) + size(nn.Linear(WIDTH, WIDTH))


class Sleep(torch.autograd.Function):
    """Sleeps 30 ms forward, 60 ms backward: much more than four ranks wait for one of two cores."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        time.sleep(0.03)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        time.sleep(0.06)
        return gradient.clone()


class SlowBlock(Block):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = Sleep.apply(super().forward(x))
        return y


def virtual_stages() -> int:
    """Runs two stages on each of two ranks, with four micro-batches; ranks 2 and 3 do the same with other data."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "pp"))
    group, index = mesh["pp"].get_group(), mesh["pp"].get_local_rank()
    modules: list[nn.Module] = [nn.Sequential(SlowBlock()), nn.Sequential(SlowBlock())]
    numbers = [index, index + 2]
    stages: list[Any] = [
        PipelineStage(m, n, 4, torch.device("cpu"), group=group) for m, n in zip(modules, numbers, strict=True)
    ]
    schedule = ScheduleInterleaved1F1B(stages, 4, loss_fn=lambda y, _: y.sum())
    steps(schedule, modules, first=index == 0, last=index == 1)
    return 4 * size(Block())


def steps(schedule: Any, modules: list[nn.Module], *, first: bool, last: bool) -> None:
    optimizer = torch.optim.SGD([p for module in modules for p in module.parameters()], lr=0.01)
    x = torch.ones(4, WIDTH)
    for _ in range(STEPS):
        schedule.step(*([x] if first else []), **({"target": x} if last else {}))
        optimizer.step()
        optimizer.zero_grad()


def groups_by_hand() -> int:
    """Averages gradients in pairs of ranks; nothing tells how the pairs are parallel to each other."""
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    train(DistributedDataParallel(model(), process_group=groups[dist.get_rank() // 2]))
    return WHOLE


def cut_by_hand() -> int:
    """Uses plain tensors, of which each rank of a pair has half of the columns; only the groups' names show it."""
    pairs = [dist.new_group([0, 2], group_desc="tp_group"), dist.new_group([1, 3], group_desc="tp_group")]
    assert dist.get_rank(pairs[dist.get_rank() % 2]) == dist.get_rank() // 2
    train(nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU()))
    return size(nn.Linear(WIDTH, 2 * WIDTH))


def fake_axis() -> int:
    """Makes dimensions without communication, as torchtitan does."""
    importlib.import_module("torch.testing._internal.distributed.fake_pg")
    fake: dict[Any, Any] = {"efsdp": "fake", "ep": "fake"}
    init_device_mesh("cpu", (2, 2), mesh_dim_names=("efsdp", "ep"), backend_override=fake)
    train(DistributedDataParallel(model()))
    return WHOLE


def two_models() -> int:
    """Trains two models alternately, each split over its own mesh of another shape."""
    models = [
        split(model(), init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))["tp"]),
        split(model(), init_device_mesh("cpu", (1, 4), mesh_dim_names=("dp", "tp"))["tp"]),
    ]
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.01, foreach=False) for each in models]
    for _ in range(STEPS):
        for each, optimizer in zip(models, optimizers, strict=True):
            each(torch.ones(2, WIDTH)).sum().backward()
            optimizer.step()
    return 2 * WHOLE


def two_halves() -> int:
    """Trains a model on each half of the world, independent of the other half."""
    half = dist.get_rank() // 2
    meshes = [DeviceMesh("cpu", [0, 1], mesh_dim_names=("tp",)), DeviceMesh("cpu", [2, 3], mesh_dim_names=("tp",))]
    train(split(model(), meshes[half]))
    return WHOLE


def checkpointed() -> int:
    """Trains a model with two wrappers: names are the model's own."""
    inner = copy.deepcopy(model())
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    inner[0] = checkpoint_wrapper(inner[0])
    train(DistributedDataParallel(inner))
    return WHOLE


EXPERTS, TOP_K = 4, 2


class Router(nn.Module):
    """Returns the scores and the ids of each token's experts; it does not state how many these are."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, ids = self.gate(x).softmax(-1).topk(TOP_K)
        return scores, ids


class GroupedExperts(nn.Module):
    """torchtitan's form: one DTensor of all experts, of which each ep rank has some, called with the tokens of each."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        whole = torch.randn(EXPERTS, WIDTH, WIDTH)
        self.num_experts, self.w1 = EXPERTS, nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))

    def forward(self, x: Tensor, num_tokens_per_expert: Tensor) -> Tensor:
        weights: Any = self.w1
        parts = x.split(num_tokens_per_expert.tolist())
        return torch.cat([part @ one for part, one in zip(parts, weights.to_local(), strict=True)])


class MoE(nn.Module):
    """Sends tokens to the ep ranks of their experts, and back."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self.router, self.experts, self.mesh = Router(), GroupedExperts(mesh), mesh
        self.tokens = torch.zeros(EXPERTS, dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        scores, ids = self.router(x)
        order = ids.flatten().argsort(stable=True)
        self.tokens = torch.bincount(ids.flatten(), minlength=EXPERTS)
        group, ways = self.mesh.get_group(), self.mesh.size()
        counts = torch.empty_like(self.tokens)  # by source rank, then by local expert
        dist.all_to_all_single(counts, self.tokens, group=group)
        sent, got = (each.view(ways, -1).sum(1).tolist() for each in (self.tokens, counts))
        rows = all_to_all_single_autograd(x[order // TOP_K], got, sent, group)
        by_expert = torch.arange(EXPERTS // ways).repeat(ways).repeat_interleave(counts).argsort(stable=True)
        y = self.experts(rows[by_expert], counts.view(ways, -1).sum(0))
        back = all_to_all_single_autograd(torch.zeros_like(y).index_copy(0, by_expert, y), sent, got, group)
        return torch.zeros_like(x).index_add(0, order // TOP_K, back * scores.flatten()[order, None])


def dtensor_experts() -> tuple[int, list[int]]:
    """Spreads the experts of a layer over ep 2; returns also the tokens of each expert in a step of all ranks."""
    init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("efsdp", "ep"))["ep"]
    layer = MoE(mesh)
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH), layer)
    whole = size(module)
    torch.manual_seed(dist.get_rank())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, foreach=False)
    x = torch.randn(16, WIDTH)
    for _ in range(STEPS):
        module(x).sum().backward()
        optimizer.step()
    dist.all_reduce(layer.tokens)
    return whole, layer.tokens.tolist()


SCENARIOS: dict[str, Callable[[], Any]] = {
    "dtensor_experts": dtensor_experts,
    "ddp": ddp,
    "fsdp1": partial(fsdp1, True, ShardingStrategy.FULL_SHARD),
    "fsdp1_flat": partial(fsdp1, False, ShardingStrategy.FULL_SHARD),
    "fsdp1_hybrid": partial(fsdp1, True, ShardingStrategy.HYBRID_SHARD),
    "fsdp2": fsdp2,
    "tp": tp,
    "fsdp2_tp": fsdp2_tp,
    "unknown_dimension_names": partial(fsdp2_tp, ("rows", "columns")),
    "no_names": partial(tp, None),
    "pipeline": pipeline,
    "virtual_stages": virtual_stages,
    "groups_by_hand": groups_by_hand,
    "cut_by_hand": cut_by_hand,
    "fake_axis": fake_axis,
    "two_models": two_models,
    "two_halves": two_halves,
    "checkpointed": checkpointed,
}
