"""Train a small classifier in one process, with gradient accumulation and evaluation on the way if asked for.

python train_plain.py --accumulate 4 --evaluate-every 10
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

Batches = Iterator[list[Tensor]]
Loader = DataLoader[tuple[Tensor, ...]]

FEATURES, CLASSES = 64, 10
HELD_OUT = 1024
LOG_EVERY = 5
PHASES = ("data", "forward", "backward", "optimizer", "evaluation")


class Classifier(nn.Module):
    """[batch, FEATURES] to logits, [batch, CLASSES]."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, dim)
        self.layers = nn.ModuleList(Layer(dim) for _ in range(layers))
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(x)
        return logits


class Layer(nn.Module):
    """A residual MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 4 * dim)
        self.dropout = nn.Dropout(0.1)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.down(self.dropout(F.relu(self.up(self.norm(x)))))
        return output


class Stopwatch:
    """Wall time that each phase took in each step, in ms.  For a GPU's time it has to ``synchronize``."""

    def __init__(self, synchronize: bool) -> None:
        self.laps: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.synchronize = synchronize
        self.last = 0.0

    def start_step(self) -> None:
        for laps in self.laps.values():
            laps.append(0.0)
        self.start()

    def start(self) -> None:
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        if self.synchronize:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.laps[phase][-1] = round(self.laps[phase][-1] + (now - self.last) * 1000, 3)
        self.last = now


def make_loaders(args: argparse.Namespace) -> tuple[Loader, Loader]:
    """Training and held-out data: random points, labelled by a random linear teacher."""
    points = torch.randn(args.steps * args.accumulate * args.batch + HELD_OUT, FEATURES)
    labels = (points @ torch.randn(FEATURES, CLASSES)).argmax(dim=1)
    training, held_out = random_split(TensorDataset(points, labels), [len(points) - HELD_OUT, HELD_OUT])
    return DataLoader(training, args.batch, shuffle=True), DataLoader(held_out, args.batch)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, stopwatch: Stopwatch, accumulate: int
) -> Tensor:
    """One optimizer step over ``accumulate`` micro-batches; returns their mean loss."""
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    for _ in range(accumulate):
        points, labels = (tensor.to(device) for tensor in next(batches))
        stopwatch.lap("data")
        loss = F.cross_entropy(model(points), labels) / accumulate
        stopwatch.lap("forward")
        loss.backward()
        total += loss.detach()
        stopwatch.lap("backward")
    optimizer.step()
    stopwatch.lap("optimizer")
    optimizer.zero_grad()
    return total


def accuracy(model: nn.Module, loader: Loader) -> float:
    """Share of the held-out points that the model gets right."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x.to(device)).argmax(dim=1) == y.to(device)).sum()) for x, y in loader)
    model.train()
    return right / HELD_OUT


def train(args: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)
    model = Classifier(args.dim, args.layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    training, held_out = make_loaders(args)
    batches: Batches = iter(training)
    stopwatch, losses = Stopwatch(synchronize=args.stopwatch and device.type == "cuda"), []
    for step in range(args.steps):
        stopwatch.start_step()
        losses.append(train_step(model, optimizer, batches, stopwatch, args.accumulate))
        if step % LOG_EVERY == 0:
            print(f"step {step}: loss {losses[-1].item():.4f}", flush=True)
        if args.evaluate_every and (step + 1) % args.evaluate_every == 0:
            stopwatch.start()
            print(f"step {step}: accuracy {accuracy(model, held_out):.3f}", flush=True)
            stopwatch.lap("evaluation")
    report(args, [loss.item() for loss in losses], stopwatch)


def report(args: argparse.Namespace, losses: list[float], stopwatch: Stopwatch) -> None:
    print(f"loss: {losses[0]:.4f} at first, {losses[-1]:.4f} in the end")
    if args.print_losses:
        print("losses", json.dumps([loss.hex() for loss in losses]))
    if args.stopwatch:
        print("stopwatch", json.dumps({"rank": 0, **stopwatch.laps}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--steps", type=int, default=20, help="optimizer steps (20)")
    add("--accumulate", type=int, default=1, metavar="N", help="micro-batches of a step (1)")
    add("--evaluate-every", type=int, default=0, metavar="N", help="evaluate after every N steps (0: never)")
    add("--seed", type=int, default=0, help="of parameters, data and dropout (0)")
    add("--lr", type=float, default=1e-3, help="learning rate (0.001)")
    add("--dim", type=int, default=256, help="width of the model (256)")
    add("--layers", type=int, default=4, help="residual layers (4)")
    add("--batch", type=int, default=128, help="points of a micro-batch (128)")
    add("--print-losses", action="store_true", help="print the loss of every step, exactly, as hexadecimal floats")
    add("--stopwatch", action="store_true", help="print how long each phase of each step took, in ms")
    return parser.parse_args()


def main() -> None:
    train(parse(), torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
