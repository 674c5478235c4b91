"""Triton kernels that torch launches for a script: which one it is, and what ops of Triton kernels are made of.

A kernel is an op for torch where it is launched by ``torch.library.wrap_triton`` or inside of compiled code in eager
form; one that a script launches itself (``kernel[grid](...)``) passes no dispatcher, and nobody sees it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

_WRAPPERS = frozenset({"triton_kernel_wrapper_mutation", "triton_kernel_wrapper_functional"})


def is_launch(func: Any) -> bool:
    """Whether this higher-order op launches a Triton kernel."""
    return getattr(func, "_name", None) in _WRAPPERS


def launched(keywords: Mapping[str, Any]) -> Any:
    """The kernel of a launch, without the autotuners and heuristics around it."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    kernel: Any = kernel_side_table.get_kernel(keywords["kernel_idx"])
    while type(kernel).__name__ != "JITFunction" and hasattr(kernel, "fn"):
        kernel = kernel.fn
    return kernel


def body(func: Any) -> Callable[..., Any] | None:
    """What ``torch.library.triton_op`` made an op of; None for another op."""
    made = getattr(sys.modules.get("torch._library.triton"), "triton_ops_to_kernels", {})
    name = func._schema.name
    if name not in made:
        return None
    from torch._library.custom_ops import OPDEFS

    found: Callable[..., Any] | None = getattr(OPDEFS.get(name), "_init_fn", None)
    return found
