"""Train a small GPT under DistributedDataParallel: gloo on CPU, NCCL on GPUs.

torchrun --standalone --nproc-per-node 4 train_ddp.py
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

VOCABULARY = 512
HEADS = 4
LOG_EVERY = 5


class Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, dim // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, dim))
        return output


class MLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down(F.gelu(self.up(x)))
        return output


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(dim)
        self.attn = Attention(dim)
        self.ln2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        output: Tensor = x + self.mlp(self.ln2(x))
        return output


class GPT(nn.Module):
    """Maps tokens and targets, [batch, sequence] each, to the mean loss."""

    def __init__(self, dim: int, layers: int, sequence: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, dim)
        self.position = nn.Embedding(sequence, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


class Sequences(Dataset[tuple[Tensor, Tensor]]):
    """Tokens, and the tokens after them, of arithmetic sequences that depend on the sample's number alone."""

    def __init__(self, samples: int, length: int) -> None:
        self.samples, self.length = samples, length

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        numbers = (index * 97 + (1 + index % 11) * torch.arange(self.length + 1)) % VOCABULARY
        return numbers[:-1], numbers[1:]


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


def make_loader(args: argparse.Namespace) -> DataLoader[tuple[Tensor, Tensor]]:
    data = Sequences(args.steps * args.batch * dist.get_world_size(), args.seq)
    return DataLoader(data, batch_size=args.batch, sampler=DistributedSampler(data, seed=args.seed))


def train(args: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)
    model = DistributedDataParallel(GPT(args.dim, args.layers, args.seq).to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    batches = iter(make_loader(args))
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
    report(args, torch.stack(losses), stopwatch)


def report(args: argparse.Namespace, losses: Tensor, stopwatch: Stopwatch) -> None:
    """Prints on rank 0 for all ranks, after training, so that no step waits for it."""
    dist.all_reduce(losses)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, {"rank": dist.get_rank(), **stopwatch.laps})
    if dist.get_rank() != 0:
        return
    means = (losses / dist.get_world_size()).tolist()
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--steps", type=int, default=20, help="training steps (20)")
    add("--seed", type=int, default=0, help="of the parameters and of the order of the data (0)")
    add("--lr", type=float, default=1e-3, help="learning rate (0.001)")
    add("--dim", type=int, default=128, help=f"width of the model, a multiple of {HEADS} (128)")
    add("--layers", type=int, default=4, help="blocks (4)")
    add("--seq", type=int, default=64, help="tokens of a sequence (64)")
    add("--batch", type=int, default=8, help="sequences of a step, on each rank (8)")
    add("--print-losses", action="store_true", help="print the mean loss of every step, exactly, as hexadecimal floats")
    add("--stopwatch", action="store_true", help="print how long each phase of each step took on each rank, in ms")
    args = parser.parse_args()
    if args.dim % HEADS:
        parser.error(f"--dim {args.dim} is no multiple of {HEADS}")
    return args


def main() -> None:
    args = parse()
    train(args, start())
    # Everything that holds a gradient hook goes before the process group does, and the group before the interpreter.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
