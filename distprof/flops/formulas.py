"""Formulas: aten op -> flops of one call, from the shapes of its arguments.

torch's own ``flop_registry`` comes first; here stands what it lacks.  Formulas have torch's signature
(``f(*args, out_val=..., **kwargs)`` on the real arguments) and torch's convention: a multiply-accumulate is 2 flops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

Formula = Callable[..., int]


def _attention_on_cpu(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Flash attention's CPU kernel, as torch counts its CUDA ones: two matmuls, causal ones in full."""
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _grouped_mm(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """Rows of ``a`` [M, K] against one [K, N] of ``b`` [G, K, N] each; with 2-D ``b`` the groups cut K, in all the
    same.
    """
    return int(2 * a.numel() * b.shape[-1])


def _lacking() -> dict[Any, Formula]:
    names: dict[str, Formula] = {
        "_scaled_dot_product_flash_attention_for_cpu": _attention_on_cpu,
        "_grouped_mm": _grouped_mm,
    }
    return {getattr(torch.ops.aten, name): f for name, f in names.items() if hasattr(torch.ops.aten, name)}


LACKING = _lacking()


def formula(packet: Any) -> Formula | None:
    """The formula of an op (an OpOverloadPacket), None where there is none."""
    return flop_registry.get(packet) or LACKING.get(packet)
