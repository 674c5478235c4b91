"""Makes formulas of real numbers in dense tensors fit an op's operands: sparse tensors, and complex numbers."""

from __future__ import annotations

from typing import Any

from distprof.flops import complex_numbers
from distprof.flops.formulas import sparse
from distprof.flops.formulas.rule import SPARSE, Formula, Work, tensors


def fitted(func: Any, counted: Formula) -> Formula:
    """The formula of an op, whatever its operands are."""
    name = func._overloadpacket.__name__.removesuffix("_")
    of_sparse = sparse.formula(name, counted)

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        is_sparse = is_complex = False
        for tensor in tensors((out, *args, *kwargs.values())):
            is_sparse = is_sparse or tensor.layout in SPARSE
            is_complex = is_complex or tensor.is_complex()
        macs, flops = (of_sparse if is_sparse else counted)(out, *args, **kwargs)
        return complex_numbers.work(name, macs, flops, out, args, kwargs) if is_complex else (macs, flops)

    return formula
