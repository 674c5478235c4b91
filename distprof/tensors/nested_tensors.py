"""Finds the tensors in nested values: arguments and results of ops, arguments of modules, state of optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

#: Items that are no tensors, visited for one argument of a module at most.
_MAX_OTHERS = 64
#: The same at the beginning of a list, or after a tensor in it.
_MAX_IN_A_ROW = 4


def op_tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yields the tensors among an op's arguments or results, and in lists and tuples of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from op_tensors(value)


def state_tensors(state: Any, depth: int) -> Iterator[torch.Tensor]:
    """Yields all tensors in an optimizer's state: in dicts, lists and tuples, nested up to ``depth`` levels."""
    if isinstance(state, torch.Tensor):
        yield state
    elif depth and isinstance(state, (dict, list, tuple)):
        for item in state.values() if isinstance(state, dict) else state:
            yield from state_tensors(item, depth - 1)


def call_tensors(values: Iterable[Any], depth: int) -> Iterator[torch.Tensor]:
    """Yields the tensors among a module's arguments or outputs, and in lists, tuples and dicts up to ``depth`` levels.

    The search is bounded, as it runs at every call: a batch may be lists of a hundred thousand numbers (the tokens of
    texts), and each module of a chain is given them.  A list that begins with other items is assumed to hold no tensor.
    """
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, (tuple, list, dict)):
            yield from _search(value, depth, [_MAX_OTHERS])


def _search(container: Any, depth: int, left: list[int]) -> Iterator[torch.Tensor]:
    """``left`` holds the number of other items that may still be visited."""
    max_in_a_row = _MAX_IN_A_ROW if isinstance(container, list) else left[0]
    in_a_row = 0
    for item in _items(container):
        if isinstance(item, torch.Tensor):
            in_a_row = 0
            yield item
            continue
        left[0] -= 1
        if depth > 1 and isinstance(item, (tuple, list, dict)):
            yield from _search(item, depth - 1, left)
        else:
            in_a_row += 1
        if left[0] <= 0 or in_a_row >= max_in_a_row:
            return


def _items(container: Any) -> Iterator[Any]:
    """Reads the items with Python's own methods: a script's subclass may do anything when it is iterated."""
    if isinstance(container, dict):
        return iter(dict.values(container))
    return list.__iter__(container) if isinstance(container, list) else tuple.__iter__(container)
