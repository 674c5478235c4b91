"""Which formula an op is counted by: the script's own, torch's where it is right, ours for the rest.

In this order: :func:`distprof.register_formula`; ours for the few that torch has wrong or without their bias; torch's
``flop_registry``, and what scripts add to it; ours for all that torch lacks.  Looked up when an op is first met in a
counted step, so that it does not matter when a script registers its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, shape_wrapper

from distprof.flops import user_formulas
from distprof.flops.formulas.attention import is_fused, softmaxed
from distprof.flops.formulas.rule import Formula, Work, zero_work
from distprof.flops.operands import fitted
from distprof.flops.registry import all_rules

aten = torch.ops.aten

#: torch counts these without what is added to them (a bias), and the gradient of a grouped weight `groups` times.
_OURS_FIRST = frozenset(
    {aten.addmm, aten.baddbmm, aten.convolution, aten._convolution, aten.cudnn_convolution,
     aten.convolution_overrideable, aten._slow_conv2d_forward, aten.convolution_backward}
)  # fmt: skip
#: Libraries whose ops take sparse tensors and complex numbers.
_OF_ANY_OPERANDS = frozenset({"aten", "prims"})
_SHAPES_ONLY = shape_wrapper(lambda: 0).__code__


def formula(func: Any) -> Formula | None:
    """The formula of an op (an OpOverload, a higher-order op, or a Triton kernel), None where there is none."""
    packet = getattr(func, "_overloadpacket", func)
    if packet in user_formulas.given:
        return _as_given(user_formulas.given[packet])
    found = _known(func, packet)
    if found is not None and is_fused(func):
        found = softmaxed(func, found)
    if found is None or found is zero_work or getattr(func, "namespace", "") not in _OF_ANY_OPERANDS:
        return found
    return fitted(func, found)


def _known(func: Any, packet: Any) -> Formula | None:
    if packet not in flop_registry or packet in _OURS_FIRST:
        return all_rules(func) if hasattr(func, "_schema") or isinstance(func, torch._ops.HigherOrderOperator) else None
    return _torchs(flop_registry[packet])


def _torchs(count: Any) -> Formula:
    """A formula of torch's convention: all its flops are of multiply-accumulates."""
    if getattr(count, "__code__", None) is _SHAPES_ONLY:  # torch's wrapper walks all arguments as a tree, at length
        count = _of_shapes(count.__wrapped__)

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        flops = int(count(*args, **kwargs, out_val=out))
        return flops // 2, flops

    return formula


def _as_given(given: user_formulas.UserFormula) -> Formula:
    count, macs = _of_shapes(given.flops), _of_shapes(given.macs) if given.macs is not None else None

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        return (
            int(macs(*args, **kwargs, out_val=out)) if macs is not None else 0,
            int(count(*args, **kwargs, out_val=out)),
        )

    return formula


def _of_shapes(count: Any) -> Any:
    """torch's calling convention made of a function of shapes."""

    def formula(*args: Any, out_val: Any = None, **kwargs: Any) -> Any:
        named = {name: _shape(value) for name, value in kwargs.items()}
        return count(*map(_shape, args), out_shape=_shape(out_val), **named)

    return formula


def _shape(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape
    if isinstance(value, (list, tuple)) and any(isinstance(item, (torch.Tensor, list, tuple)) for item in value):
        return type(value)(map(_shape, value)) if type(value) in (list, tuple) else [_shape(item) for item in value]
    return value
