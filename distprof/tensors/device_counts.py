"""Counts on an accelerator without waiting for it, in as few kernels as possible: each launch costs the script time.

What is the same in all calls (numbers, zeros) is kept for each stream: a kernel of another one might read it before it
is written.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

#: The numbers that one launch sets to zero, for the counts of many calls.
_ZEROS = 1 << 13
#: The last tensors that readers have made, which no script has; a reader makes up to four.
_made: list[Tensor] = []


def made(counts: Tensor) -> Tensor:
    """Says that ``counts`` is new and that nothing will change it, so that it need not be copied; returns it."""
    _made.append(counts)
    del _made[:-4]
    return counts


def is_made(counts: Tensor) -> bool:
    """Returns whether :func:`made` has just been called with this tensor: it is none of the script's."""
    return id(counts) in map(id, _made)


def copied(counts: Tensor) -> Tensor:
    """Returns a copy of counts of the script as int64, in one launch."""
    return made(counts.detach().to(torch.int64, copy=True))


def as_it_is(tensor: Tensor) -> Tensor:
    """Returns what a tensor of the script has now: on a device itself, which launches nothing, and else a copy.

    Who keeps it has to compare its version when it is read: the script may have changed it.
    """
    if tensor.is_cpu or tensor.is_inference():
        return made(tensor.detach().clone())
    return made(tensor.detach())


def count_on_device(ids: Tensor, experts: int) -> Tensor:
    """Counts each expert in ``ids``, integers of any shape; other numbers are left out.

    The slot of an id is its number + 1; those of other numbers are the first and the last.  bincount would wait.
    """
    common = _common_of(ids.device)
    slots = torch.bucketize(_dense(ids), common.edges(experts, ids.dtype), right=True).view(-1)
    found = common.zeros(experts + 2).scatter_add_(0, slots, common.one.expand(slots.numel()))
    return found[1:-1]


def _dense(ids: Tensor) -> Tensor:
    """Returns the ids in the order of memory: bucketize copies others, and warns."""
    if not ids.is_contiguous():
        ids = ids.permute(sorted(range(ids.dim()), key=ids.stride, reverse=True))
    return ids.contiguous()


class _Common:
    """What the calls on one stream have in common."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.one = torch.ones(1, dtype=torch.int64, device=device)
        self._edges: dict[tuple[int, torch.dtype], Tensor] = {}
        self._zeros = torch.zeros(0, dtype=torch.int64, device=device)

    def edges(self, experts: int, dtype: torch.dtype) -> Tensor:
        """Returns 0, 1, ... up to the first number that is no expert, or the largest one of the type."""
        found = self._edges.get((experts, dtype))
        if found is None:
            end = min(experts, torch.iinfo(dtype).max) + 1
            found = self._edges[experts, dtype] = torch.arange(end, device=self._device).to(dtype)
        return found

    def zeros(self, number: int) -> Tensor:
        """Returns zeros that no other call gets."""
        if self._zeros.numel() < number:
            self._zeros = torch.zeros(max(number, _ZEROS), dtype=torch.int64, device=self._device)
        taken, self._zeros = self._zeros[:number], self._zeros[number:]
        return taken


class _OfThread(threading.local):
    """What the calls of one thread have in common, by device and stream."""

    def __init__(self) -> None:
        self.by_stream: dict[Any, _Common] = {}


_here = _OfThread()


def _common_of(device: torch.device) -> _Common:
    stream = getattr(getattr(torch, device.type, None), "current_stream", None)
    key = device, None if stream is None else stream(device)
    found = _here.by_stream.get(key)
    if found is None:
        found = _here.by_stream[key] = _Common(device)
    return found
