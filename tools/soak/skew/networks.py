"""The networks that the jobs train: a small language model, and a perceptron."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from soak.skew.cases import LAYERS

VOCABULARY, WIDTH, HEADS = 256, 64, 4
FEATURES, CLASSES = 64, 10
_SIDE, _CHANNELS = 8, 16
_PERCEPTRON_WIDTH, _PERCEPTRON_LAYERS = 192, 6


class Attention(nn.Module):
    """Causal self-attention; its projections may be divided over tensor-parallel ranks."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (m(x).view(batch, length, -1, self.head_width).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.o(y.transpose(1, 2).reshape(batch, length, -1))
        return out


class RingAttention(Attention):
    """Full attention to the sequences of all ranks together: each passes keys and values on to the next one."""

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (m(x).view(batch, length, -1, self.head_width).transpose(1, 2) for m in (self.q, self.k, self.v))
        keys, values = [k], [v]
        passed = torch.stack([k, v]).detach()
        for _ in range(dist.get_world_size() - 1):
            passed = _from_previous(passed)
            keys.append(passed[0])
            values.append(passed[1])
        y = functional.scaled_dot_product_attention(q, torch.cat(keys, 2), torch.cat(values, 2))
        out: Tensor = self.o(y.transpose(1, 2).reshape(batch, length, -1))
        return out


def _from_previous(x: Tensor) -> Tensor:
    """Sends ``x`` to the next rank of the ring, and returns what the previous one sends."""
    rank, ranks, got = dist.get_rank(), dist.get_world_size(), torch.empty_like(x)
    ends = [
        dist.P2POp(dist.isend, x.contiguous(), (rank + 1) % ranks),
        dist.P2POp(dist.irecv, got, (rank - 1) % ranks),
    ]
    for work in dist.batch_isend_irecv(ends):
        work.wait()
    return got


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1, self.act, self.w2 = nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(self.act(self.w1(x)))
        return out


class Layer(nn.Module):
    def __init__(self, width: int, ff: nn.Module | None = None, attention: type[Attention] = Attention) -> None:
        super().__init__()
        self.n1, self.attn = nn.LayerNorm(width), attention(width, HEADS)
        self.n2, self.ff = nn.LayerNorm(width), ff or FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x))
        out: Tensor = x + self.ff(self.n2(x))
        return out


class LanguageModel(nn.Module):
    """A transformer, or a stage of one; ``feed_forwards`` replaces those of some layers, by their numbers."""

    def __init__(
        self, layers: int, *, first: bool = True, last: bool = True,
        feed_forwards: Mapping[int, nn.Module] | None = None, attention: type[Attention] = Attention,
    ) -> None:  # fmt: skip
        super().__init__()
        if first:
            self.emb = nn.Embedding(VOCABULARY, WIDTH)
        own = feed_forwards or {}
        self.layers = nn.ModuleList(Layer(WIDTH, own.get(number), attention) for number in range(layers))
        if last:
            self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.emb(x)
        for layer in self.layers:
            x = layer(x)
        return self.out(self.norm(x)) if self.last else x


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(FEATURES, _PERCEPTRON_WIDTH)
        self.layers = nn.ModuleList(
            FeedForward(_PERCEPTRON_WIDTH, 2 * _PERCEPTRON_WIDTH) for _ in range(_PERCEPTRON_LAYERS)
        )
        self.out = nn.Linear(_PERCEPTRON_WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for layer in self.layers:
            x = x + layer(x)
        out: Tensor = self.out(x)
        return out


class Convolutional(nn.Module):
    """Points as images of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Conv2d(1, _CHANNELS, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.GroupNorm(4, _CHANNELS), nn.ReLU())
            for _ in range(LAYERS)
        )
        self.out = nn.Linear(_CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x.view(len(x), 1, _SIDE, -1))
        for layer in self.layers:
            x = x + layer(x)
        out: Tensor = self.out(x.mean((2, 3)))
        return out


class Recurrent(nn.Module):
    """A language model of two recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.out = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.layers = nn.ModuleList(nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.emb(x)
        for layer in self.layers:
            x = layer(x)[0]
        out: Tensor = self.out(x)
        return out


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of all positions: logits of shape (batch, length, vocabulary), targets of shape (batch, length)."""
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def leaves(model: nn.Module) -> list[nn.Module]:
    """Returns the modules without children that have parameters."""
    return [m for m in model.modules() if not list(m.children()) and list(m.parameters(recurse=False))]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
