"""Counts operations on complex numbers as operations on their real parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from distprof.flops.formulas import linalg
from distprof.flops.formulas.rule import Work

#: A product of two complex numbers takes four real products, and a MAC takes four real MACs.
MACS = 4
_SUM = 2
_PRODUCT = 6  # (a + bi)(c + di): four products, two sums; by convention also any function of a complex number
_QUOTIENT = 11  # a product with the conjugate (6), its squared magnitude (3), two quotients
_MAGNITUDE = 4  # two squares, their sum, its root
_FACTORIZED = 4  # for each product with its sum, as LAPACK counts

_FLOPS = {
    **dict.fromkeys(
        ("add", "sub", "rsub", "neg", "sum", "nansum", "mean", "cumsum", "trace", "index_add", "scatter_add",
         "index_put", "_index_put_impl", "_unsafe_index_put", "_unsafe_masked_index_put_accumulate",
         "embedding_dense_backward", "unfold_backward", "col2im", "_foreach_add", "_foreach_sub", "_foreach_neg",
         # products are MACs; the rest are sums (a bias)
         "addmm", "baddbmm", "addbmm", "addmv", "addr", "convolution", "_convolution", "convolution_backward",
         # a squared magnitude and a sum are 4 (real: 2); with difference, sum and mean 8 (real: 4)
         "norm", "linalg_vector_norm", "linalg__powsum", "var", "std", "var_mean", "std_mean", "_coalesce"),
        _SUM,
    ),
    **dict.fromkeys(("abs", "_foreach_abs"), _MAGNITUDE),
    **dict.fromkeys(("_fft_c2c", "_fft_r2c", "_fft_c2r", "fft_c2c", "fft_r2c", "fft_c2r"), 1),  # in real flops
    **dict.fromkeys(("angle", "conj_physical", "_conj_physical"), 1),
    "polar": 4,  # a cosine, a sine, two products
}  # fmt: skip
_FACTORIZATIONS = frozenset(op for rule in linalg.CHAPTER.rules for op in rule.ops) | {"svd"}
_PRODUCTS, _QUOTIENTS = frozenset({"mul", "_foreach_mul"}), frozenset({"div", "_foreach_div", "reciprocal"})


def work(name: str, macs: int, flops: int, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Work:
    """Returns the work of an op on complex numbers; ``macs`` and ``flops`` count each complex operation as one."""
    if name in _PRODUCTS | _QUOTIENTS and len(args) > 1 and _has_a_real_factor(name, args):
        each = _SUM  # both parts with one real number
    elif name in _QUOTIENTS:
        each = _QUOTIENT
    elif name in _FACTORIZATIONS:
        each = _FACTORIZED
    else:
        each = _FLOPS.get(name, _PRODUCT)
    return MACS * macs, 2 * MACS * macs + each * (flops - 2 * macs)


def _has_a_real_factor(name: str, args: Sequence[Any]) -> bool:
    return _is_real(args[1]) or (name in _PRODUCTS and _is_real(args[0]))


def _is_real(value: Any) -> bool:
    """Whether a number, a tensor, or each in a list of them is real."""
    if isinstance(value, torch.Tensor):
        return not value.is_complex()
    return all(map(_is_real, value)) if isinstance(value, (list, tuple)) else not isinstance(value, complex)
