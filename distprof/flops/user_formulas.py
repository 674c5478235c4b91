"""Formulas that a script registers with distprof for its own ops.  Never imports torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from distprof.errors import UsageError

ShapeFormula = Callable[..., int]


class UserFormula(NamedTuple):
    """Functions called as torch's formulas: with the op's arguments, shapes in place of tensors, and ``out_shape``."""

    flops: ShapeFormula
    macs: ShapeFormula | None


#: Op without overload -> formula, as in torch's registry.
registered: dict[Any, UserFormula] = {}


def register_formula(op: Any, flops: ShapeFormula, macs: ShapeFormula | None = None) -> None:
    """See :func:`distprof.register_formula`."""
    for what, formula in (("flops", flops), ("macs", macs)):
        if not callable(formula) and not (what == "macs" and formula is None):
            raise UsageError(f"register_formula: {what} must be a function of the op's shapes, not {formula!r}")
    registered[_key(op)] = UserFormula(flops, macs)


def _key(op: Any) -> Any:
    """Returns the op without its overload, or the Triton kernel.  If the script has an op, it has imported torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        if isinstance(op, torch._ops.OpOverload):
            return op._overloadpacket
        if isinstance(op, (torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator)):
            return op
    if type(op).__name__ == "JITFunction" and type(op).__module__.startswith("triton."):
        return op
    overload = getattr(op, "_opoverload", None)  # what torch.library.custom_op makes of a function
    if overload is not None:
        return overload._overloadpacket
    raise UsageError(f"register_formula: {op!r} is no op; give torch.ops.<library>.<op>, or a Triton kernel")
