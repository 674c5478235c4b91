"""Extends formulas for real dense tensors to sparse tensors and complex numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from distprof.flops import complex_numbers
from distprof.flops.formulas import sparse
from distprof.flops.formulas.rule import SPARSE, Formula, PerOutput, Work
from distprof.tensors.nested_tensors import op_tensors

_dense = torch.strided
#: Classes of most arguments that are no tensors: asking for these is quicker than asking for torch.Tensor.
_NUMBERS = frozenset({int, float, bool, type(None)})


def for_any_operands(func: Any, counted: Formula) -> Formula:
    """Returns the formula of an op for any operands; ``counted`` is that for real dense ones."""
    name = func._overloadpacket.__name__.removesuffix("_")
    sparse_formula = sparse.formula(name, counted)
    of_output = counted if isinstance(counted, PerOutput) else None

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        if _are_real_and_dense(args) and (not kwargs or _are_real_and_dense(kwargs.values())):
            if of_output is not None and isinstance(out, torch.Tensor) and _is_dense_float(out):
                return 0, of_output.each(args, kwargs) * out.numel()
            if _are_real_and_dense((out,)):
                return counted(out, *args, **kwargs)
        is_sparse = is_complex = False
        for tensor in op_tensors((out, *args, *kwargs.values())):
            is_sparse = is_sparse or tensor.layout in SPARSE
            is_complex = is_complex or tensor.is_complex()
        macs, flops = (sparse_formula if is_sparse else counted)(out, *args, **kwargs)
        return complex_numbers.work(name, macs, flops, out, args, kwargs) if is_complex else (macs, flops)

    return formula


def _is_dense_float(tensor: torch.Tensor) -> bool:
    return tensor.layout is _dense and tensor.dtype.is_floating_point


def _are_real_and_dense(values: Iterable[Any]) -> bool:
    """Whether all tensors among an op's arguments are, as nearly always; this runs for each op."""
    for value in values:
        kind = type(value)
        if kind in _NUMBERS:
            continue
        if isinstance(value, torch.Tensor):
            if value.layout is not _dense or value.dtype.is_complex:
                return False
        elif (kind is list or kind is tuple or isinstance(value, (list, tuple))) and not _are_real_and_dense(value):
            return False
    return True
