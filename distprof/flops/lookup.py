"""Looks up the formula of an op: the script's own, torch's where it is right, distprof's for the rest.

The order is: :func:`distprof.register_formula`; distprof's formulas for the few ops that torch counts wrong or without
their bias; torch's ``flop_registry`` with the formulas that scripts add to it; distprof's for all other ops.  An op is
looked up at its first call in a counted step, so a script may register its formulas at any time before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils.flop_counter import flop_registry, shape_wrapper

from distprof.flops import user_formulas
from distprof.flops.formulas.attention import is_fused, with_elementwise_flops
from distprof.flops.formulas.rule import Formula, Work, zero_work
from distprof.flops.operands import for_any_operands
from distprof.flops.registry import find_formula
from distprof.records import FLOPS_PER_MAC

aten = torch.ops.aten

#: torch counts these without the added operand (a bias), and the gradient of a grouped weight `groups` times.
_OVERRIDDEN = frozenset(
    {aten.addmm, aten.baddbmm, aten.convolution, aten._convolution, aten.cudnn_convolution,
     aten.convolution_overrideable, aten._slow_conv2d_forward, aten.convolution_backward}
)  # fmt: skip
#: Libraries whose ops accept sparse tensors and complex numbers.
_OF_ANY_OPERANDS = frozenset({"aten", "prims"})
_TORCHS_PRODUCTS = (flop_counter.mm_flop, flop_counter.bmm_flop)
_SHAPES_ONLY = shape_wrapper(lambda: 0).__code__


def formula(func: Any) -> Formula | None:
    """Returns the formula of an op (an OpOverload, a higher-order op, or a Triton kernel); None if there is none."""
    packet = getattr(func, "_overloadpacket", func)
    if packet in user_formulas.registered:
        return _user_formula(user_formulas.registered[packet])
    found = _registered_formula(func, packet)
    if found is not None and is_fused(func):
        found = with_elementwise_flops(func, found)
    if found is None or found is zero_work or getattr(func, "namespace", "") not in _OF_ANY_OPERANDS:
        return found
    return for_any_operands(func, found)


def _registered_formula(func: Any, packet: Any) -> Formula | None:
    if packet not in flop_registry or packet in _OVERRIDDEN:
        is_op = hasattr(func, "_schema") or isinstance(func, torch._ops.HigherOrderOperator)
        return find_formula(func) if is_op else None
    count = flop_registry[packet]
    return _product if count in _TORCHS_PRODUCTS else _torch_formula(count)


def _product(out: Any, /, a: Any, *_: Any, **__: Any) -> Work:
    """Counts as torch's formulas of a product of matrices do, which take several times as long to call."""
    macs = out.numel() * a.shape[-1]
    return macs, FLOPS_PER_MAC * macs


def _torch_formula(count: Any) -> Formula:
    """Adapts a formula of torch's registry, all of whose flops are multiply-accumulates."""
    if getattr(count, "__code__", None) is _SHAPES_ONLY:  # torch's wrapper is slow: it flattens all arguments
        count = _with_shapes(count.__wrapped__)

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        flops = int(count(*args, **kwargs, out_val=out))
        return flops // 2, flops

    return formula


def _user_formula(user: user_formulas.UserFormula) -> Formula:
    count, macs = _with_shapes(user.flops), _with_shapes(user.macs) if user.macs is not None else None

    def formula(out: Any, /, *args: Any, **kwargs: Any) -> Work:
        return (
            int(macs(*args, **kwargs, out_val=out)) if macs is not None else 0,
            int(count(*args, **kwargs, out_val=out)),
        )

    return formula


def _with_shapes(count: Any) -> Any:
    """Adapts a function of shapes to torch's calling convention."""

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
