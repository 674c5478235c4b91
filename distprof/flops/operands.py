"""Extends formulas for real dense tensors to sparse tensors and complex numbers."""

from __future__ import annotations

from typing import Any

from distprof.flops import complex_numbers
from distprof.flops.formulas import sparse
from distprof.flops.formulas.rule import SPARSE, Formula, Work
from distprof.nested_tensors import op_tensors


def for_any_operands(func: Any, counted: Formula) -> Formula:
    """Returns the formula of an op for any operands; ``counted`` is that for real dense ones."""
    name = func._overloadpacket.__name__.removesuffix("_")
    sparse_formula = sparse.formula(name, counted)

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        is_sparse = is_complex = False
        for tensor in op_tensors((out, *args, *kwargs.values())):
            is_sparse = is_sparse or tensor.layout in SPARSE
            is_complex = is_complex or tensor.is_complex()
        macs, flops = (sparse_formula if is_sparse else counted)(out, *args, **kwargs)
        return complex_numbers.work(name, macs, flops, out, args, kwargs) if is_complex else (macs, flops)

    return formula
