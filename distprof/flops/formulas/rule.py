"""The definition of a formula: the work of one call of an op, and its description in words.

A formula takes the op's result and then the op's own arguments, and returns (MACs, flops).  Each multiply-accumulate is
also 2 of the flops.  Every other addition, multiplication, comparison or function of a number in the textbook's formula
is one flop, however many instructions a device uses.  Selecting, moving or making numbers is no flop.  Formulas are for
real numbers in dense tensors; :mod:`~distprof.flops.operands` extends them to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distprof.records import FLOPS_PER_MAC

Work = tuple[int, int]  # MACs, and flops with 2 for each of them

#: ``formula(result, /, *arguments, **keywords)``, with the op's own arguments.
Formula = Callable[..., Work]

#: Layouts of sparse tensors (those of oneDNN and of nested tensors are others).
SPARSE = frozenset({torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc})

_QUANTIZED = frozenset({torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4})

ARITHMETIC = "arithmetic"  # the source of a formula that only adds up the operations of the op's definition


@dataclass(frozen=True)
class Rule:
    """One formula, and the ops that it counts.

    An op is named ``add`` (an aten op, and its in-place form ``add_``) or ``mkldnn::_linear_pointwise``.
    """

    ops: tuple[str, ...]
    formula: Formula
    macs: str
    flops: str
    source: str = ARITHMETIC


@dataclass(frozen=True)
class Chapter:
    """A group of rules, with its heading and text on the page of formulas."""

    title: str
    text: str
    rules: tuple[Rule, ...]


class NoFormulaError(Exception):
    """This call of the op cannot be counted, unlike others: it is listed as not counted."""


def only_macs(macs: int) -> Work:
    return macs, FLOPS_PER_MAC * macs


def is_real_work(tensor: torch.Tensor) -> bool:
    """Whether operations on this tensor's numbers count as flops.

    Those on integers and booleans do not, except in quantized tensors, where integers represent real numbers.
    """
    dtype = tensor.dtype
    return dtype.is_floating_point or dtype.is_complex or dtype in _QUANTIZED


def first_tensor(value: Any) -> torch.Tensor:
    """Returns the tensor, or the first of several."""
    first: torch.Tensor = value if isinstance(value, torch.Tensor) else value[0]
    return first


def stored_numel(tensor: torch.Tensor) -> int:
    """Returns the number of stored elements; in a sparse tensor explicit zeros and duplicates count."""
    if tensor.layout not in SPARSE:
        return tensor.numel()
    if tensor.is_meta:
        raise NoFormulaError("a sparse tensor without data stores no elements")
    values = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
    return int(values.numel())


def numel(value: Any) -> int:
    """Returns the number of elements of a tensor, or of all tensors in a list."""
    if isinstance(value, torch.Tensor):
        if not (value.dtype.is_floating_point or is_real_work(value)):  # the first is true for most, and quick
            return 0
        return value.numel() if value.layout is torch.strided else stored_numel(value)
    return sum(map(numel, value)) if isinstance(value, Iterable) else 0


#: (arguments, keywords) of a call -> flops an element beyond those of every call of the op.
More = Callable[[Sequence[Any], Mapping[str, Any]], int]


def no_more(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return 0


@dataclass(frozen=True)
class PerOutput:
    """A formula of so many flops for each element of the op's first output."""

    flops: int
    more: More = no_more

    def each(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        return self.flops if self.more is no_more else self.flops + self.more(args, kwargs)

    def __call__(self, out: Any, /, *args: Any, **kwargs: Any) -> Work:
        return 0, self.each(args, kwargs) * numel(out if isinstance(out, torch.Tensor) else out[0])


@dataclass(frozen=True)
class PerInput:
    """A formula of so many flops for each element of one of the op's arguments: a tensor, or a list of them."""

    flops: int
    argument: int = 0
    more: More = no_more

    def __call__(self, _: Any, *args: Any, **kwargs: Any) -> Work:
        return 0, (self.flops + self.more(args, kwargs)) * numel(args[self.argument])


per_output, per_input = PerOutput, PerInput


def zero_work(*_: Any, **__: Any) -> Work:
    """The formula of ops that move, select or make numbers.  The counter compares with it, and does not call it."""
    return 0, 0
