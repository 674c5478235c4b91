"""Finds which dimension of a model's input is the batch: torch's recurrent modules take sequences first by default."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from distprof.module_walk import every_module


class BatchOrder:
    """Whether the batch of a model is the second dimension of its input.

    It is the second where a module in the model takes sequences first, and got sequences as long as the model's own.
    """

    def __init__(self) -> None:
        self.unknown: set[int] = set()  # models with such modules, until a call of one was seen
        self.second: set[int] = set()  # models whose batch is the second dimension

    def add_model(self, root: int, model: nn.Module) -> None:
        """Adds a model that has just got its rows."""
        if any(map(takes_sequences_first, every_module(model))):
            self.unknown.add(root)

    def observe(self, root: int, given: torch.Size | None, inside: torch.Size | None) -> None:
        """Compares the shapes that a model was given, and that it gave to a module that takes sequences first."""
        if given is None or inside is None or len(inside) != 3:
            return
        length, batch = inside[:2]
        self.unknown.discard(root)
        if len(given) > 1 and given[0] == length != batch and given[1] == batch:
            self.second.add(root)
        elif len(given) and given[0] == batch:
            self.second.discard(root)

    def settle(self, rows: Iterable[int]) -> None:
        """Settles models all of whose calls were seen: without a call of such a module they are like all others."""
        self.unknown.difference_update(rows)


def takes_sequences_first(module: nn.Module) -> bool:
    """Whether the module takes sequences first, as torch's recurrent and attention modules do by default."""
    return module.__dict__.get("batch_first") is False
