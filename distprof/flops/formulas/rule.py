"""What a formula is: the work of one call of an op, and in words how it is counted.

A formula gets what the op returned and then the op's own arguments, and gives (MACs, flops).  A multiply-accumulate is
2 flops, and they are among the flops.  Elsewhere each addition, multiplication, comparison or function of a number that
the textbook's formula asks for is one flop, however many instructions a device spends on it.  What only decides, picks,
moves or makes numbers is no flop.  Formulas are of real numbers in dense tensors; :mod:`~distprof.flops.operands` makes
them fit others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Work = tuple[int, int]  # MACs, and flops with 2 for each of them

#: ``formula(result, /, *arguments, **keywords)``, all of them the op's own.
Formula = Callable[..., Work]

#: Layouts of sparse tensors (those of oneDNN and of nested tensors are others).
SPARSE = frozenset({torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc})

_QUANTIZED = frozenset({torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4})

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


class NoFormulaError(Exception):
    """This call of an op, unlike others of it, cannot be counted: it is listed as not counted."""


def only_macs(macs: int) -> Work:
    return macs, 2 * macs


def is_real_work(tensor: torch.Tensor) -> bool:
    """Whether numbers of this tensor count as flops: integers and truth values do not, unless they stand for others
    (quantized tensors).
    """
    dtype = tensor.dtype
    return dtype.is_floating_point or dtype.is_complex or dtype in _QUANTIZED


def first_tensor(value: Any) -> torch.Tensor:
    """The tensor that an op takes or gives in the first place."""
    first: torch.Tensor = value if isinstance(value, torch.Tensor) else value[0]
    return first


def tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among the values, and in lists among them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


def stored(tensor: torch.Tensor) -> int:
    """Elements that a tensor keeps: of a sparse one, those that are stored, explicit zeros and duplicates included."""
    if tensor.layout not in SPARSE:
        return tensor.numel()
    if tensor.is_meta:
        raise NoFormulaError("a sparse tensor without data stores no elements")
    values = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
    return int(values.numel())


def numel(value: Any) -> int:
    """Elements of a tensor, or of all tensors of a list."""
    if isinstance(value, torch.Tensor):
        return stored(value) if is_real_work(value) else 0
    return sum(map(numel, value)) if isinstance(value, Iterable) else 0


#: Of a call's arguments and keywords: flops an element beside those that all calls of its op have.
More = Callable[[Sequence[Any], Mapping[str, Any]], int]


def no_more(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return 0


@dataclass(frozen=True)
class PerOutput:
    """So many flops an element of the op's first output."""

    flops: int
    more: More = no_more

    def each(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        return self.flops + self.more(args, kwargs)

    def __call__(self, out: Any, /, *args: Any, **kwargs: Any) -> Work:
        return 0, self.each(args, kwargs) * numel(first_tensor(out))


@dataclass(frozen=True)
class PerInput:
    """So many flops an element of one of the op's arguments: a tensor, or a list of them."""

    flops: int
    argument: int = 0
    more: More = no_more

    def __call__(self, _: Any, *args: Any, **kwargs: Any) -> Work:
        return 0, (self.flops + self.more(args, kwargs)) * numel(args[self.argument])


per_output, per_input = PerOutput, PerInput


def zero_work(*_: Any, **__: Any) -> Work:
    """Of an op that moves, picks or makes numbers.  The counter knows it by this name and does not ask."""
    return 0, 0
