"""Finds the Triton kernels that torch launches for a script, and the functions behind ops made of Triton kernels.

A kernel is an op for torch if ``torch.library.wrap_triton`` launches it, or compiled code in eager form.  A kernel that
a script launches itself (``kernel[grid](...)``) does not pass the dispatcher, so it is not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

_WRAPPERS = frozenset({"triton_kernel_wrapper_mutation", "triton_kernel_wrapper_functional"})


def is_launch(func: Any) -> bool:
    """Whether this higher-order op launches a Triton kernel."""
    return getattr(func, "_name", None) in _WRAPPERS


def launched_kernel(keywords: Mapping[str, Any]) -> Any:
    """Returns the kernel of a launch, without the autotuners and heuristics around it."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    kernel: Any = kernel_side_table.get_kernel(keywords["kernel_idx"])
    while type(kernel).__name__ != "JITFunction" and hasattr(kernel, "fn"):
        kernel = kernel.fn
    return kernel


def body(func: Any) -> Callable[..., Any] | None:
    """Returns the function of which ``torch.library.triton_op`` made an op; None for other ops."""
    made = getattr(sys.modules.get("torch._library.triton"), "triton_ops_to_kernels", {})
    name = func._schema.name
    if name not in made:
        return None
    from torch._library.custom_ops import OPDEFS

    found: Callable[..., Any] | None = getattr(OPDEFS.get(name), "_init_fn", None)
    return found
