"""How much work an op without a formula may be: to name those first that matter most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch

from distprof.flops.formulas.rule import is_real_work, tensors

#: What a record can hold.
MOST = (1 << 62) - 1


def likely_work(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """An order of magnitude by the sizes of real numbers, never a count.

    Two operands of unlike shapes may be multiplied: of [M, K] by [K, N] into [M, N] the root of the product of the
    three sizes is the number of products, and of a convolution that by the kernel's side.  Else it is the largest size.
    """
    operands = sorted(map(_size, tensors((*args, *kwargs.values()))), reverse=True)[:2]
    results = [_size(tensor) for tensor in tensors((result,))]
    largest = max((size for size, _ in (*operands, *results)), default=0)
    if len(operands) < 2 or not results or operands[0][1] == operands[1][1] or not all(size for size, _ in operands):
        return min(largest, MOST)
    product = isqrt(operands[0][0] * operands[1][0] * max(results)[0])
    return min(max(largest, product), MOST)


def _size(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    """(elements, shape); a nested tensor has no shape."""
    return tensor.numel() if is_real_work(tensor) else 0, () if tensor.is_nested else tuple(tensor.shape)
