"""The networks that the jobs train: a small language model, and a perceptron."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, WIDTH, HEADS = 256, 64, 4
FEATURES, CLASSES = 64, 10
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


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1, self.act, self.w2 = nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(self.act(self.w1(x)))
        return out


class Layer(nn.Module):
    def __init__(self, width: int, ff: nn.Module | None = None) -> None:
        super().__init__()
        self.n1, self.attn = nn.LayerNorm(width), Attention(width, HEADS)
        self.n2, self.ff = nn.LayerNorm(width), ff or FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x))
        out: Tensor = x + self.ff(self.n2(x))
        return out


class LanguageModel(nn.Module):
    """A transformer, or a stage of one; ``feed_forwards`` replaces those of some layers, by their numbers."""

    def __init__(
        self, layers: int, *, first: bool = True, last: bool = True,
        feed_forwards: Mapping[int, nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if first:
            self.emb = nn.Embedding(VOCABULARY, WIDTH)
        own = feed_forwards or {}
        self.layers = nn.ModuleList(Layer(WIDTH, own.get(number)) for number in range(layers))
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


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of all positions: logits of shape (batch, length, vocabulary), targets of shape (batch, length)."""
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def leaves(model: nn.Module) -> list[nn.Module]:
    """Returns the modules without children that have parameters."""
    return [m for m in model.modules() if not list(m.children()) and list(m.parameters(recurse=False))]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
