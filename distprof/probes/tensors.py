"""Finds the tensors in a call's arguments or output, within a bounded number of looks.

A batch may be lists of a hundred thousand numbers (the tokens of texts), which each module of a chain gets.  The search
is bounded: if a list begins with other values, the rest is assumed to be of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

#: Most values other than tensors that are looked at in one argument.
_MOST_OTHERS = 64
#: Most of them in a row, at the beginning of a list or after a tensor.
_MOST_IN_A_ROW = 4


def tensors(values: Iterable[Any], depth: int) -> Iterator[torch.Tensor]:
    """Yields the tensors in ``values``, and in lists, tuples and dicts nested up to ``depth``."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, (tuple, list, dict)):
            yield from _inside(value, depth, [_MOST_OTHERS])


def _inside(holder: Any, depth: int, left: list[int]) -> Iterator[torch.Tensor]:
    """Yields the tensors in one container; ``left`` is the remaining number of other values to look at."""
    in_a_row = _MOST_IN_A_ROW if isinstance(holder, list) else left[0]
    others = 0
    for item in _items(holder):
        if isinstance(item, torch.Tensor):
            others = 0
            yield item
            continue
        left[0] -= 1
        if depth > 1 and isinstance(item, (tuple, list, dict)):
            yield from _inside(item, depth - 1, left)
        else:
            others += 1
        if left[0] <= 0 or others >= in_a_row:
            return


def _items(holder: Any) -> Iterator[Any]:
    """Returns the items by the built-in methods: a subclass in the script may run any code in its own."""
    if isinstance(holder, dict):
        return iter(dict.values(holder))
    return list.__iter__(holder) if isinstance(holder, list) else tuple.__iter__(holder)
