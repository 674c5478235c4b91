"""All formulas of distprof, by chapter and by name; ``docs/FLOPS.md`` is generated from this registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from distprof.flops import zero_cost
from distprof.flops.formulas import (
    attention,
    convolution,
    linalg,
    matmul,
    nested,
    norms,
    optimizers,
    pointwise,
    primitives,
    quantized,
    rnn,
    sampling,
    sparse,
    vision,
)
from distprof.flops.formulas.rule import Chapter, Formula, zero_work

CHAPTERS: tuple[Chapter, ...] = (
    matmul.CHAPTER,
    convolution.CHAPTER,
    attention.CHAPTER,
    nested.CHAPTER,
    rnn.CHAPTER,
    pointwise.CHAPTER,
    pointwise.REDUCTIONS,
    norms.SOFTMAXES,
    norms.NORMS,
    norms.LOSSES,
    sampling.POOLING,
    sampling.FOURIER,
    linalg.CHAPTER,
    sparse.CHAPTER,
    quantized.CHAPTER,
    vision.CHAPTER,
    primitives.CHAPTER,
    optimizers.CHAPTER,
)

_FOREACH = "_foreach_"
_RULES = (
    *(rule for chapter in CHAPTERS if chapter is not sparse.CHAPTER for rule in chapter.rules),
    *sparse.ONLY_SPARSE,
)
_FORMULAS = {op: rule.formula for rule in _RULES for op in rule.ops}
_POINTWISE = getattr(torch.Tag, "pointwise", None)


def find_formula(func: Any) -> Formula | None:
    """Returns distprof's formula of an op (an OpOverload or a higher-order op); None if there is none."""
    if not isinstance(func, torch._ops.OpOverload):
        return _FORMULAS.get(f"higher_order::{func.name()}")
    if func.namespace in zero_cost.NAMESPACES:
        return zero_work
    if func.namespace != "aten":
        return _library_formula(func)
    return _aten_formula(func._overloadpacket.__name__.removesuffix("_")) or _formula_by_tag(func)


def _library_formula(func: Any) -> Formula | None:
    name = func._schema.name
    if func.namespace == "prims" and name.removeprefix("prims::") in primitives.ZERO_COST:
        return zero_work
    return _FORMULAS.get(name) or (zero_work if zero_cost.is_free_library_op(name) else None)


def _aten_formula(name: str) -> Formula | None:
    if name.startswith(_FOREACH):
        each = name.removeprefix(_FOREACH)
        return zero_work if each in zero_cost.OPS else pointwise.foreach(each)
    if name in zero_cost.OPS or name.removesuffix("_copy") in zero_cost.OPS:
        return zero_work
    return _FORMULAS.get(name)


def _formula_by_tag(func: torch._ops.OpOverload) -> Formula | None:
    if func.is_view or torch.Tag.view_copy in func.tags:
        return zero_work
    return pointwise.POINTWISE if any(_POINTWISE in form.tags for form in _forms(func)) else None


def _forms(func: torch._ops.OpOverload) -> Iterator[torch._ops.OpOverload]:
    """Yields the op and its other overloads, in place or not: torch does not tag all of them."""
    yield func
    packet = func._overloadpacket
    name = packet.__name__
    functional = getattr(torch.ops.aten, name.removesuffix("_"), None) if not name.endswith("__") else None
    for form in (packet, *([functional] if functional is not None else [])):
        for overload in form.overloads():
            yield getattr(form, overload)
