"""The models of the second table: small modules that run forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True)
class Part:
    """A module and its input tensors, all of which get a gradient."""

    title: str
    given: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Iterable[Tensor]]


class Attention(nn.Module):
    """Attention of queries, keys and values, by one of torch's implementations."""

    def __init__(self, road: SDPBackend) -> None:
        super().__init__()
        self.road = road

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(self.road):
            return F.scaled_dot_product_attention(query, key, value)


class Recurrent(nn.Module):
    """Two recurrent layers, batch first; returns their output only."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.lstm(x)[0]
        return output


class Thrice(nn.Module):
    """A Linear that is called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.linear(x)
        return x


def tensors(number: int, *shape: int) -> Callable[[], Iterable[Tensor]]:
    return lambda: [torch.rand(shape, requires_grad=True) for _ in range(number)]


HEADS = tensors(3, 1, 12, 64, 64)
PARTS = (
    Part("attention, fused", "3 x 1 x 12 x 64 x 64", lambda: Attention(SDPBackend.FLASH_ATTENTION), HEADS),
    Part("attention, math", "3 x 1 x 12 x 64 x 64", lambda: Attention(SDPBackend.MATH), HEADS),
    Part("LSTM(64, 128, 2 layers)", "4 x 10 x 64", Recurrent, tensors(1, 4, 10, 64)),
    Part("one Linear(64, 64), three times", "8 x 64", Thrice, tensors(1, 8, 64)),
    Part(
        "ConvTranspose2d(16, 8, 4, stride 2, padding 1)",
        "1 x 16 x 16 x 16",
        lambda: nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
        tensors(1, 1, 16, 16, 16),
    ),
    Part(
        "depthwise Conv2d(32, 32, 3, padding 1)",
        "1 x 32 x 16 x 16",
        lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32),
        tensors(1, 1, 32, 16, 16),
    ),
)
