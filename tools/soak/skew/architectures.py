"""The training jobs: each function sets one up on this rank and returns its iteration, the optimizer's step last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from soak.skew import links
from soak.skew.cases import LAYERS, RESTING
from soak.skew.data import batches
from soak.skew.experts import EXPERTS, MixtureOfExperts
from soak.skew.faults import Fault
from soak.skew.networks import WIDTH, Convolutional, LanguageModel, Perceptron, Recurrent, RingAttention, token_loss

Iteration = Callable[[], None]
Loss = Callable[[Tensor, Tensor], Tensor]
_MICRO_BATCHES = 4
_EXCHANGES = 8  # of tokens, in one iteration


def set_up(fault: Fault, iterations: int) -> Iteration:
    """Returns the iteration of the case's architecture, for this rank.  Needs the default process group."""
    makers: dict[str, Callable[[Fault, int], Iteration]] = {
        "ddp_mlp": _perceptron, "ddp_gpt": _data_parallel, "fsdp2": _fully_sharded, "hsdp": _fully_sharded,
        "tp": _tensor_parallel, "tp4": _tensor_parallel, "pp": _pipeline, "pp1f1b": _pipeline, "pp4": _pipeline,
        "moe": _experts, "conv": _convolutional, "lstm": _recurrent, "accum": _accumulating,
        "zero1": _sharded_optimizer, "local": _local, "ring": _ring,
    }  # fmt: skip
    return makers[fault.case.architecture.removesuffix(RESTING)](fault, iterations)


def _perceptron(fault: Fault, iterations: int) -> Iteration:
    network = Perceptron()
    model = _replicate(fault, network, bucket_mb=0.5)
    return _training(model, fault, batches(fault, 48, iterations, tokens=False), cross_entropy)


def _data_parallel(fault: Fault, iterations: int) -> Iteration:
    model = _replicate(fault, LanguageModel(LAYERS), bucket_mb=0.2)
    return _training(model, fault, batches(fault, 2, iterations), token_loss)


def _convolutional(fault: Fault, iterations: int) -> Iteration:
    model = _replicate(fault, Convolutional(), bucket_mb=0.05)
    return _training(model, fault, batches(fault, 4, iterations, tokens=False), cross_entropy)


def _recurrent(fault: Fault, iterations: int) -> Iteration:
    model = _replicate(fault, Recurrent(), bucket_mb=0.2)
    return _training(model, fault, batches(fault, 4, iterations), token_loss)


def _accumulating(fault: Fault, iterations: int) -> Iteration:
    """Gradients of two batches are accumulated, and only the second one's are averaged."""
    model = _replicate(fault, LanguageModel(LAYERS), bucket_mb=0.2, parts=2)
    data, optimizer = batches(fault, 2, 2 * iterations), fault.optimizer(model.parameters())

    def iteration() -> None:
        for last in (False, True):
            inputs, targets = next(data)
            with nullcontext() if last else model.no_sync():
                token_loss(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return iteration


def _sharded_optimizer(fault: Fault, iterations: int) -> Iteration:
    """ZeRO's first stage: each rank updates a part of the parameters, and sends it to the others."""
    model = _replicate(fault, LanguageModel(LAYERS), bucket_mb=0.2)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3, foreach=False)
    return _training(model, fault, batches(fault, 2, iterations), token_loss, optimizer)


def _local(fault: Fault, iterations: int) -> Iteration:
    """Local SGD: ranks train alone, and average their parameters in every second iteration."""
    network = LanguageModel(LAYERS)
    fault.plant(network)
    train = _training(network, fault, batches(fault, 2, iterations), token_loss)

    def iteration() -> None:
        train()
        if fault.iteration % 2:
            for parameter in network.parameters():
                dist.all_reduce(parameter.data.div_(fault.case.ranks))

    return iteration


def _ring(fault: Fault, iterations: int) -> Iteration:
    """Attention passes keys and values around a ring of all ranks, by messages."""
    return _training(
        _replicate(fault, LanguageModel(LAYERS, attention=RingAttention), bucket_mb=0.2),
        fault, batches(fault, 2, iterations), token_loss,
    )  # fmt: skip


def _replicate(fault: Fault, network: nn.Module, bucket_mb: float, parts: int = 1) -> DistributedDataParallel:
    fault.plant(network, parts)
    model = DistributedDataParallel(network, bucket_cap_mb=bucket_mb)
    if fault.rank in fault.case.slow_group and fault.case.architecture != "moe":
        links.slow_buckets(model, fault.case.ms)
    return model


def _fully_sharded(fault: Fault, iterations: int) -> Iteration:
    """Hybrid sharding divides the parameters over half of the ranks, twice."""
    half = fault.case.ranks // 2
    hybrid = fault.case.architecture == "hsdp"
    shape, names = ((2, half), ("replicate", "shard")) if hybrid else ((2 * half,), ("dp",))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    network = LanguageModel(LAYERS)
    fault.plant(network)
    for layer in network.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return _training(network, fault, batches(fault, 2, iterations), token_loss)


def _tensor_parallel(fault: Fault, iterations: int) -> Iteration:
    """The ranks of one tensor-parallel group read the same batches."""
    shape = (fault.case.ranks // fault.case.grouped, fault.case.grouped)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
    plan = {f"attn.{name}": ColwiseParallel() for name in "qkv"} | {"ff.w1": ColwiseParallel()}
    network = LanguageModel(LAYERS)
    for layer in network.layers:
        parallelize_module(layer, mesh["tp"], {**plan, "attn.o": RowwiseParallel(), "ff.w2": RowwiseParallel()})
    fault.plant(network)
    for layer in network.layers:
        fully_shard(layer, mesh=mesh["dp"], reshard_after_forward=False)
    fully_shard(network, mesh=mesh["dp"], reshard_after_forward=False)
    if fault.rank in fault.case.slow_group:
        links.slow_all_reduces(fault.case.ms)
    return _training(network, fault, batches(fault, 2, iterations), token_loss)


def _experts(fault: Fault, iterations: int) -> Iteration:
    """One expert-parallel group of all ranks; two groups where the link of one is slow."""
    case = fault.case
    size = case.ranks // 2 if case.fault == "link" else case.ranks
    groups = [dist.new_group(list(range(first, first + size)), group_desc="ep") for first in range(0, case.ranks, size)]
    hot = case.rank * (EXPERTS // size) if case.fault == "hot" else None
    link_ms = case.ms / _EXCHANGES if fault.rank in case.slow_group else 0
    own = groups[fault.rank // size]
    torch.manual_seed(1)
    moe = {number: MixtureOfExperts(WIDTH, own, hot, link_ms) for number in (1, 3)}
    network = LanguageModel(LAYERS, feed_forwards=moe)
    experts = [name for name, _ in network.named_parameters() if ".experts." in name]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, experts)
    model = _replicate(fault, network, bucket_mb=0.2)
    return _training(model, fault, batches(fault, 4, iterations), token_loss)


def _training(
    model: nn.Module, fault: Fault, data: Iterator[Any], loss: Loss, optimizer: torch.optim.Optimizer | None = None
) -> Iteration:
    optimizer = optimizer or fault.optimizer(model.parameters())

    def iteration() -> None:
        inputs, targets = next(data)
        loss(model(inputs), targets).backward()
        for parameter in model.parameters():
            if parameter.grad is None:  # of an expert that got no token
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()

    return iteration


def _pipeline(fault: Fault, iterations: int) -> Iteration:
    """Gradients are averaged by hand over the replicas of each stage."""
    case, stages = fault.case, fault.case.grouped
    mesh = init_device_mesh("cpu", (stages, case.ranks // stages), mesh_dim_names=("pp", "dp"))
    stage_of, replicas = mesh.get_local_rank("pp"), mesh["dp"].get_group()
    network = _stage(case.fault == "longstage", stage_of, stages)
    fault.plant(network, _MICRO_BATCHES)
    stage = PipelineStage(network, stage_of, stages, torch.device("cpu"), group=mesh["pp"].get_group())
    schedule_class = Schedule1F1B if case.architecture == "pp1f1b" else ScheduleGPipe
    schedule = schedule_class(stage, n_microbatches=_MICRO_BATCHES, loss_fn=token_loss)
    if fault.rank in case.slow_group:
        links.slow_messages(case.ms, _MICRO_BATCHES)
    data, optimizer = batches(fault, 4, iterations), fault.optimizer(network.parameters())

    def iteration() -> None:
        inputs, targets = next(data)
        if stage_of == 0:
            schedule.step(inputs)
        elif stage_of == stages - 1:
            schedule.step(target=targets, losses=[])
        else:
            schedule.step()
        _average_gradients(network, replicas)
        optimizer.step()
        optimizer.zero_grad()

    return iteration


def _stage(long_last: bool, number: int, stages: int) -> nn.Module:
    """An equal part of the layers; a long last stage of two has five of six."""
    layers = (1, 5)[number] if long_last else LAYERS // stages
    return LanguageModel(layers, first=number == 0, last=number == stages - 1)


def _average_gradients(model: nn.Module, group: dist.ProcessGroup) -> None:
    if dist.get_world_size(group) == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, group=group)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
