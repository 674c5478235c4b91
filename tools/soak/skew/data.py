"""Batches of made-up samples, which depend on nothing but their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from soak.skew.faults import MORE_WORK, Fault
from soak.skew.networks import CLASSES, FEATURES, VOCABULARY, seeded

LENGTH = 32


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Inputs and targets: sequences of tokens, or points with a class."""

    def __init__(self, count: int, *, tokens: bool) -> None:
        self._count, self._tokens = count, tokens

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        generator = seeded(number)
        if self._tokens:
            line = torch.randint(0, VOCABULARY, (LENGTH + 1,), generator=generator)
            return line[:-1], line[1:]
        return torch.randn(FEATURES, generator=generator), torch.randint(0, CLASSES, (), generator=generator)


def batches(fault: Fault, size: int, iterations: int, *, tokens: bool = True) -> Iterator[Any]:
    """Yields (inputs, targets); twice as many samples in each if this rank has more work."""
    if fault.culprit and fault.case.fault == "uneven":
        size *= MORE_WORK
    samples = Samples(size * (iterations + 2), tokens=tokens)
    return iter(DataLoader(samples, batch_size=size, collate_fn=fault.collate))
