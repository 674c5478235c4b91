"""The tensors that a call is given or gives, without a look through all of what it is given.

A batch may be lists of numbers, a hundred thousand of them (the tokens of texts), and each module of a chain is given
them: what is looked at is bounded, and of a list that begins with things of other kinds the rest is taken for the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

#: Things that are no tensors, looked at for one argument.
_MOST_OTHERS = 64
#: Of them at the beginning of a list, or behind a tensor in it.
_MOST_IN_A_ROW = 4


def tensors(values: Iterable[Any], depth: int) -> Iterator[torch.Tensor]:
    """Those among ``values``, and in lists, tuples and dicts of them, ``depth`` of them in one another."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, (tuple, list, dict)):
            yield from _inside(value, depth, [_MOST_OTHERS])


def _inside(holder: Any, depth: int, left: list[int]) -> Iterator[torch.Tensor]:
    """``left``: the looks at other things that are left."""
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
    """As Python itself keeps them: a subclass of the script's may do anything when it is asked."""
    if isinstance(holder, dict):
        return iter(dict.values(holder))
    return list.__iter__(holder) if isinstance(holder, list) else tuple.__iter__(holder)
