"""Train a small GPT with mixture-of-experts layers on a mesh of dp x tp, with the experts spread over ep.

    torchrun --standalone --nproc-per-node 8 train_moe.py --tp 2 --ep 8 --skew

Every rank builds the whole model (moe_model.py) from one seed and keeps its share, so that every layout trains the same
model on the same data.  Tensor parallelism is DTensor's; FSDP2 shards the dense parameters over dp; tokens travel to
their experts by all_to_all.  All gradients are in sync when ``loss.backward()`` returns.

``--skew`` makes some experts hot, and ``--slow-rank`` makes one rank slow: a job with a known illness.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from moe_model import GPT, VOCABULARY, MoE, Shape, moe_layers
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

LOG_EVERY = 5
HOT_BIAS = 1.0  # nearly two standard deviations of a fresh router's logits


# ---- the model, spread over the ranks --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meshes:
    """The meshes of the same ranks for the dense layers and for the experts."""

    dense: DeviceMesh  # dp x tp
    experts: DeviceMesh  # edp x ep


def make_meshes(device: torch.device, tp: int, ep: int) -> Meshes:
    world = dist.get_world_size()
    return Meshes(
        dense=init_device_mesh(device.type, (world // tp, tp), mesh_dim_names=("dp", "tp")),
        experts=init_device_mesh(device.type, (world // ep, ep), mesh_dim_names=("edp", "ep")),
    )


def parallelize(model: GPT, meshes: Meshes) -> None:
    """Keep this rank's share of the model, and reduce its gradients with other ranks."""
    tensor_parallel(model, meshes.dense["tp"])
    for moe in moe_layers(model).values():
        expert_parallel(moe, meshes)
    experts = {parameter for moe in moe_layers(model).values() for parameter in moe.experts.parameters()}
    fully_shard(model, mesh=meshes.dense["dp"], reshard_after_forward=False, ignored_params=experts)


def tensor_parallel(model: GPT, mesh: DeviceMesh) -> None:
    """Heads, hidden units and vocabulary are split over ``mesh``; an MoE layer splits its tokens."""
    styles = {
        "attn.qkv": ColwiseParallel(),
        "attn.proj": RowwiseParallel(),
        "mlp.up": ColwiseParallel(),
        "mlp.down": RowwiseParallel(),
        # Each tp rank routes its own tokens, so the gate's gradient is a sum over them, which this style knows.
        "moe.router.gate": SequenceParallel(sequence_dim=0, use_local_output=True),
    }
    for block in model.blocks:
        names = dict(block.named_modules())
        parallelize_module(block, mesh, {name: style for name, style in styles.items() if name in names})
    parallelize_module(model.head, mesh, ColwiseParallel(output_layouts=Replicate()))
    if mesh.size() > 1:
        for moe in moe_layers(model).values():
            moe.slice.mesh = moe.gather.mesh = mesh


def expert_parallel(moe: MoE, meshes: Meshes) -> None:
    """Keep the experts of this ep rank: a run of consecutive ones."""
    mesh = meshes.experts["ep"]
    local = moe.num_experts // mesh.size()
    first = mesh.get_local_rank() * local
    moe.experts = nn.ModuleList(list(moe.experts)[first : first + local])
    if mesh.size() > 1:
        moe.dispatch.group = moe.combine.group = mesh.get_group()
    for parameter in moe.experts.parameters():
        parameter.register_post_accumulate_grad_hook(expert_gradient_hook(meshes))


def expert_gradient_hook(meshes: Meshes) -> Callable[[Tensor], None]:
    """Sum an expert's gradient over its replicas, and make it a mean over dp, as FSDP's are (one backward a step)."""
    dp, replicas = meshes.dense["dp"].size(), meshes.experts["edp"]

    def hook(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.div_(dp)
        if replicas.size() > 1:
            dist.all_reduce(parameter.grad, group=replicas.get_group())

    return hook


# ---- planted faults --------------------------------------------------------------------------------------------------


def hot_experts(layer: int, num_experts: int) -> list[int]:
    """One expert in eight, others in each layer."""
    hot = max(1, num_experts // 8)
    return sorted((3 + 5 * layer + i * num_experts // hot) % num_experts for i in range(hot))


def make_experts_hot(model: nn.Module) -> dict[str, list[int]]:
    """Makes experts hot; returns them by the name of their layer."""
    hot = {}
    for layer, (name, moe) in enumerate(moe_layers(model).items()):
        hot[name] = hot_experts(layer, moe.num_experts)
        moe.router.bias[hot[name]] = HOT_BIAS
    return hot


class SleepInBackward(torch.autograd.Function):
    """The identity, whose backward takes ``seconds``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        time.sleep(ctx.seconds)
        return gradient, None


def make_slow(module: nn.Module, phase: str, seconds: float) -> None:
    """Makes the module sleep in each call, before its own work: in forward and in backward before its children.

    In backward it must return one tensor.
    """
    if phase == "forward":
        module.register_forward_pre_hook(lambda *_: time.sleep(seconds))
    else:
        module.register_forward_hook(lambda _module, _inputs, output: SleepInBackward.apply(output, seconds))


def second_moe_layer(model: nn.Module) -> str:
    """Returns the name of the second MoE layer, or of the only one."""
    return list(moe_layers(model))[:2][-1]


# ---- data ------------------------------------------------------------------------------------------------------------


class Sequences(Dataset[tuple[Tensor, Tensor]]):
    """Tokens, and the tokens after them, of arithmetic sequences that depend on the sample's number alone."""

    def __init__(self, samples: int, length: int) -> None:
        self.samples, self.length = samples, length

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        numbers = (index * 97 + (1 + index % 11) * torch.arange(self.length + 1)) % VOCABULARY
        return numbers[:-1], numbers[1:]


def make_loader(args: argparse.Namespace, dp: DeviceMesh) -> DataLoader[tuple[Tensor, Tensor]]:
    """In step i the dp ranks together see samples [i * batch, (i + 1) * batch), whatever the layout."""
    slow = args.slow_phase == "data" and args.slow_rank == dist.get_rank()

    def collate(samples: list[Any]) -> Any:
        time.sleep(args.slow_ms / 1000 if slow else 0)
        return default_collate(samples)

    data = Sequences(args.steps * args.batch, args.seq)
    sampler: DistributedSampler[Any] = DistributedSampler(data, dp.size(), dp.get_local_rank(), shuffle=False)
    return DataLoader(data, batch_size=args.batch // dp.size(), sampler=sampler, collate_fn=collate)


# ---- training --------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Wall time that each phase of each step took on this rank, in ms.  For a GPU's time it has to ``synchronize``."""

    def __init__(self, synchronize: bool) -> None:
        self.laps: dict[str, list[float]] = {"data": [], "forward": [], "backward": [], "optimizer": []}
        self.synchronize = synchronize
        self.last = 0.0

    def start(self) -> None:
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        if self.synchronize:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.laps[phase].append(round((now - self.last) * 1000, 3))
        self.last = now


def describe(model: GPT, hot: dict[str, list[int]], print_params: bool) -> None:
    if print_params:
        print(f"params of model: {sum(parameter.numel() for parameter in model.parameters())}", flush=True)
    for name, experts in hot.items():
        print(f"hot experts: {name}: {' '.join(map(str, experts))}", flush=True)


def build(args: argparse.Namespace, device: torch.device, meshes: Meshes) -> GPT:
    torch.manual_seed(args.seed)
    model = GPT(Shape(args.dim, args.layers, args.heads, args.seq, args.experts))
    hot = make_experts_hot(model) if args.skew else {}
    if dist.get_rank() == 0:
        describe(model, hot, args.print_params)
    parallelize(model.to(device), meshes)
    if args.slow_rank == dist.get_rank() and args.slow_phase != "data":
        module = model.get_submodule(args.slow_module or second_moe_layer(model))
        make_slow(module, args.slow_phase, args.slow_ms / 1000)
    return model


def train(args: argparse.Namespace, device: torch.device) -> None:
    meshes = make_meshes(device, args.tp, args.ep)
    model = build(args, device, meshes)
    # foreach kernels refuse to mix DTensors with the experts' plain tensors.
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, foreach=False)
    batches = iter(make_loader(args, meshes.dense["dp"]))
    stopwatch, losses = Stopwatch(synchronize=args.stopwatch and device.type == "cuda"), []
    for step in range(args.steps):
        stopwatch.start()
        tokens, targets = (tensor.to(device) for tensor in next(batches))
        stopwatch.lap("data")
        loss = model(tokens, targets)
        stopwatch.lap("forward")
        loss.backward()
        stopwatch.lap("backward")
        optimizer.step()
        stopwatch.lap("optimizer")
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step % LOG_EVERY == 0 and dist.get_rank() == 0:
            print(f"step {step}: loss of this rank's samples {loss.item():.4f}", flush=True)
    report(args, torch.stack(losses), stopwatch, meshes.dense["dp"])


def report(args: argparse.Namespace, losses: Tensor, stopwatch: Stopwatch, dp: DeviceMesh) -> None:
    """Prints on rank 0 for all ranks, after training, so that no step waits for it."""
    dist.all_reduce(losses, group=dp.get_group())
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, {"rank": dist.get_rank(), **stopwatch.laps})
    if dist.get_rank() != 0:
        return
    means = (losses / dp.size()).tolist()
    print(f"mean loss: {means[0]:.4f} at first, {means[-1]:.4f} in the end", flush=True)
    if args.print_losses:
        print("losses", json.dumps([loss.hex() for loss in means]), flush=True)
    if args.stopwatch:
        for laps in everyone:
            print("stopwatch", json.dumps(laps), flush=True)


def start() -> torch.device:
    """Join the other ranks; without torchrun, be alone."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backend = "nccl" if device.type == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    if dist.get_world_size() > 1 and device.type == "cpu":
        torch.set_num_threads(1)
    return device


def parse() -> argparse.Namespace:
    """The options, with defaults that suit the world size."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--steps", type=int, default=20, help="training steps (20)")
    add("--seed", type=int, default=0, help="of the parameters (0)")
    add("--lr", type=float, default=1e-3, help="learning rate (0.001)")
    add("--dim", type=int, default=128, help="width of the model (128)")
    add("--layers", type=int, default=4, help="blocks, of which every second has experts (4)")
    add("--heads", type=int, default=4, help="attention heads (4)")
    add("--seq", type=int, default=64, help="tokens of a sequence (64)")
    add("--batch", type=int, default=16, help="sequences of a step, over all ranks (16)")
    add("--experts", type=int, default=16, help="experts of an MoE layer, over all ranks (16)")
    add("--tp", type=int, default=math.gcd(world, 2), help="tensor parallel ranks (2, or 1 in an odd world)")
    add("--ep", type=int, help="expert parallel ranks (as many as divide both world size and experts)")
    add("--skew", action="store_true", help="make some experts hot, by a bias on the router's logits; says which")
    add("--slow-rank", type=int, default=-1, metavar="R", help="make rank R slow")
    add("--slow-ms", type=float, default=40.0, metavar="M", help="by M ms a step (40)")
    add("--slow-phase", choices=["forward", "backward", "data"], default="forward", help="where it sleeps (forward)")
    add("--slow-module", metavar="NAME", help="the module in which it sleeps (the second MoE layer)")
    add("--print-params", action="store_true", help="print the number of parameters of the whole model")
    add("--print-losses", action="store_true", help="print the mean loss of every step, exactly, as hexadecimal floats")
    add("--stopwatch", action="store_true", help="print how long each phase of each step took on each rank, in ms")
    args = parser.parse_args()
    args.ep = args.ep or math.gcd(world, args.experts)
    check(parser, args, world)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace, world: int) -> None:
    """Refuse what cannot be split evenly, and a slow rank that is not there."""
    if args.slow_rank >= world:
        parser.error(f"--slow-rank {args.slow_rank}: the ranks are 0 to {world - 1}")
    dp = world // args.tp
    for whole, what, part, parts in (
        (world, "ranks", args.tp, "--tp"),
        (world, "ranks", args.ep, "--ep"),
        (args.dim, "--dim", args.heads, "--heads"),
        (args.heads, "--heads", args.tp, "--tp"),
        (args.experts, "--experts", args.ep, "--ep"),
        (args.batch, "--batch", dp, "data parallel ranks"),
        (args.batch // dp * args.seq, "tokens of a rank", args.tp, "--tp"),
    ):
        if whole % part:
            parser.error(f"{whole} ({what}) cannot be split evenly by {part} ({parts})")


def main() -> None:
    args = parse()
    train(args, start())
    # Everything that holds a gradient hook or a group goes before the group does, and the group before the interpreter.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
