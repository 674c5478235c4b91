"""What a formula is: the work of one call of an op, and in words how it is counted.

A formula gets what the op returned and then the op's own arguments, and gives (MACs, flops).  A multiply-accumulate is
2 flops, and they are among the flops.  Elsewhere each addition, multiplication, comparison or function of a number that
the textbook's formula asks for is one flop, however many instructions a device spends on it; a complex number counts as
one.  What only decides, picks, moves or makes numbers is no flop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

Work = tuple[int, int]  # MACs, and flops with 2 for each of them

#: ``formula(result, /, *arguments, **keywords)``, all of them the op's own.
Formula = Callable[..., Work]

ARITHMETIC = "arithmetic"  # the source of a formula that only adds up the operations of the op's definition


@dataclass(frozen=True)
class Rule:
    """One formula and the ops that it holds for.

    An op is named ``add`` (then of aten, and in place, ``add_``, too) or ``mkldnn::_linear_pointwise``.
    """

    ops: tuple[str, ...]
    formula: Formula
    macs: str
    flops: str
    source: str = ARITHMETIC


@dataclass(frozen=True)
class Chapter:
    """Rules that belong together, under a heading and a few sentences of the page that describes them."""

    title: str
    text: str
    rules: tuple[Rule, ...]


def only_flops(flops: int) -> Work:
    return 0, flops


def only_macs(macs: int) -> Work:
    return macs, 2 * macs


def is_real_work(tensor: torch.Tensor) -> bool:
    """Whether numbers of this tensor count as flops: integers and truth values do not."""
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def first_tensor(value: Any) -> torch.Tensor:
    """The tensor that an op takes or gives in the first place."""
    first: torch.Tensor = value if isinstance(value, torch.Tensor) else value[0]
    return first


def numel(value: Any) -> int:
    """Elements of a tensor, or of all tensors of a list."""
    if isinstance(value, torch.Tensor):
        return value.numel() if is_real_work(value) else 0
    return sum(map(numel, value)) if isinstance(value, Iterable) else 0


def per_output(flops: int) -> Formula:
    """So many flops an element of the op's first output."""

    def formula(out: Any, /, *_: Any, **__: Any) -> Work:
        result = first_tensor(out)
        return 0, flops * result.numel() if is_real_work(result) else 0

    return formula


def per_input(flops: int, argument: int = 0) -> Formula:
    """So many flops an element of one of the op's arguments: a tensor, or a list of them."""

    def formula(_: Any, *args: Any, **__: Any) -> Work:
        return 0, flops * numel(args[argument])

    return formula


def nothing(*_: Any, **__: Any) -> Work:
    """Of an op that moves, picks or makes numbers.  The counter knows it by this name and does not ask."""
    return 0, 0
