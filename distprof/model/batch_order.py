"""Which dimension of its input a model has its batch in: torch's recurrent modules take sequences first by default."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from distprof.module_walk import every_module


class BatchOrder:
    """Which dimension of what a model is given is its batch: the second where modules in it were seen to take sequences
    first of the same length.
    """

    def __init__(self) -> None:
        self.unknown: set[int] = set()  # models with such modules, until one was seen at work
        self.second: set[int] = set()

    def met(self, root: int, model: nn.Module) -> None:
        """A model has got its rows."""
        if any(map(takes_sequences_first, every_module(model))):
            self.unknown.add(root)

    def seen(self, root: int, given: torch.Size | None, inside: torch.Size | None) -> None:
        """A model that was given one shape gave another to a module that takes sequences first."""
        if given is None or inside is None or len(inside) != 3:
            return
        length, batch = inside[:2]
        self.unknown.discard(root)
        if len(given) > 1 and given[0] == length != batch and given[1] == batch:
            self.second.add(root)
        elif len(given) and given[0] == batch:
            self.second.discard(root)

    def looked(self, rows: Iterable[int]) -> None:
        """All calls of these were seen: a model that gave such modules nothing of the kind is like all others."""
        self.unknown.difference_update(rows)


def takes_sequences_first(module: nn.Module) -> bool:
    """As torch's own recurrent and attention modules do, if they are not told otherwise."""
    return module.__dict__.get("batch_first") is False
