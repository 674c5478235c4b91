"""Estimates the work of ops without a formula, so that the report names the largest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch

from distprof.flops.formulas.rule import is_real_work
from distprof.tensors.nested_tensors import op_tensors

#: The largest number in a record.
MAX_WORK = (1 << 62) - 1


def likely_work(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Returns an order of magnitude, never a count, from the sizes of the real-valued operands and results.

    Two operands of different shapes may be multiplied.  For [M, K] by [K, N] into [M, N], the square root of the
    product of the three sizes is the number of products; for a convolution it is that number divided by the kernel's
    side.  In all other cases the estimate is the largest size.
    """
    operands = sorted(map(_size, op_tensors((*args, *kwargs.values()))), reverse=True)[:2]
    results = [_size(tensor) for tensor in op_tensors((result,))]
    largest = max((size for size, _ in (*operands, *results)), default=0)
    if len(operands) < 2 or not results or operands[0][1] == operands[1][1] or not all(size for size, _ in operands):
        return min(largest, MAX_WORK)
    product = isqrt(operands[0][0] * operands[1][0] * max(results)[0])
    return min(max(largest, product), MAX_WORK)


def _size(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    """Returns (elements, shape); a nested tensor has no shape."""
    return tensor.numel() if is_real_work(tensor) else 0, () if tensor.is_nested else tuple(tensor.shape)
