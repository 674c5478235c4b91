"""All of our formulas, by chapter and by name; ``docs/FLOPS.md`` is made from what stands here."""

from __future__ import annotations

from typing import Any

import torch

from distprof.flops import attention, convolution, matmul, moved, norms, optimizers, pointwise, rnn, sampling
from distprof.flops.rule import Chapter, Formula, nothing

CHAPTERS: tuple[Chapter, ...] = (
    matmul.CHAPTER,
    convolution.CHAPTER,
    attention.CHAPTER,
    rnn.CHAPTER,
    pointwise.CHAPTER,
    pointwise.REDUCTIONS,
    norms.SOFTMAXES,
    norms.NORMS,
    norms.LOSSES,
    sampling.POOLING,
    sampling.FOURIER,
    optimizers.CHAPTER,
)

_FOREACH = "_foreach_"
_FORMULAS = {op: rule.formula for chapter in CHAPTERS for rule in chapter.rules for op in rule.ops}
_POINTWISE = getattr(torch.Tag, "pointwise", None)


def ours(func: Any) -> Formula | None:
    """Our formula of an op (an OpOverload or a higher-order op), None where there is none."""
    if not isinstance(func, torch._ops.OpOverload):
        return _FORMULAS.get(f"higher_order::{func.name()}")
    if func.namespace in moved.NAMESPACES:
        return nothing
    if func.namespace != "aten":
        return _FORMULAS.get(func._schema.name)
    return _of_aten(func._overloadpacket.__name__.removesuffix("_")) or _by_kind(func)


def _of_aten(name: str) -> Formula | None:
    if name.startswith(_FOREACH):
        each = name.removeprefix(_FOREACH)
        return nothing if each in moved.OPS else pointwise.foreach(each)
    if name in moved.OPS or name.removesuffix("_copy") in moved.OPS:
        return nothing
    return _FORMULAS.get(name)


def _by_kind(func: torch._ops.OpOverload) -> Formula | None:
    if func.is_view or torch.Tag.view_copy in func.tags:
        return nothing
    return pointwise.POINTWISE if _POINTWISE in func.tags else None
