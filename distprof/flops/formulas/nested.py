"""Ops that autograd does not decompose for nested tensors, whose samples have different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from distprof.flops.formulas.rule import Chapter, Rule, Work, only_macs


def is_for_nested(func: Any) -> bool:
    """Whether an op's formula is only for nested tensors: for other tensors the op decomposes."""
    return getattr(func, "_overloadpacket", None) in (torch.ops.aten.linear, torch.ops.aten.matmul)


def _sizes(tensor: Any) -> list[list[int]]:
    """Returns the sizes of each sample of a nested tensor; of any other tensor its one shape."""
    if tensor.is_nested:
        sizes: list[list[int]] = tensor._nested_tensor_size().tolist()
        return sizes
    return [list(tensor.shape)]


def _matmul_macs(a: Any, b: Any) -> int:
    """Counts each element of ``a`` with each column of its matrix in ``b``, which samples may share."""
    if not a.is_nested and not b.is_nested:
        columns = b.shape[-1] if b.dim() > 1 else 1
        batches = _broadcast(a.shape[:-2], b.shape[:-2])
        return int(batches * prod(a.shape[-2:]) * columns)
    mine, others = _sizes(a), _sizes(b)
    samples = max(len(mine), len(others))
    pairs = zip(mine * (samples // len(mine)), others * (samples // len(others)), strict=True)
    return sum(prod(one) * other[-1] for one, other in pairs)


def _broadcast(one: Sequence[int], other: Sequence[int]) -> int:
    """Returns the number of matrices in a batch whose dimensions are broadcast."""
    longest = max(len(one), len(other))
    padded = ([1] * (longest - len(sizes)) + list(sizes) for sizes in (one, other))
    return prod(max(sizes) for sizes in zip(*padded, strict=True))


def _linear(out: Any, /, _: Any, weight: Any, bias: Any = None, *__: Any, **___: Any) -> Work:
    macs = out.numel() * weight.shape[-1]
    return macs, 2 * macs + (out.numel() if bias is not None else 0)


def _matmul(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> Work:
    return only_macs(_matmul_macs(a, b))


def _matmul_backward(_: Any, grad: Any, a: Any, b: Any, mask: Sequence[bool], *__: Any, **___: Any) -> Work:
    return only_macs(sum(map(bool, mask)) * _matmul_macs(a, b))


CHAPTER = Chapter(
    "Nested tensors",
    "In nested tensors each sample counts with its own sizes.  Their attention, without a fused kernel, is counted by "
    "its matrix products.",
    (
        Rule(("linear",), _linear, "M K N of each sample", "2 MACs + 1 an output element for a bias", "as `addmm`"),
        Rule(("matmul",), _matmul, "M K N of each sample, or of each matrix of a batch", "2 MACs", "as `mm`"),
        Rule(("matmul_backward",), _matmul_backward, "as the forward, for each of two gradients", "2 MACs", "as `mm`"),
    ),
)
