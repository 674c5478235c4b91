"""The part of the forward that a fused kernel computes again in its backward: executed work, but not the model's.

Fused attention keeps no scores; its backward computes them again from query and key (FlashAttention, arXiv:2205.14135,
algorithm 4), so it runs 2.5 x the forward where the math backend runs 2 x.  MFU should be the same for both, so this
product Q K^T is left out of the model's own work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

#: Fused attention's backward -> the positions of query and value among its arguments.
BACKWARDS = {
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_backward",
            "_scaled_dot_product_efficient_attention_backward",
            "_scaled_dot_product_cudnn_attention_backward",
            "_scaled_dot_product_fused_attention_overrideable_backward",
            "_scaled_dot_product_flash_attention_for_cpu_backward",
            "_flash_attention_backward",
            "_efficient_attention_backward",
            "_cudnn_attention_backward",
        ),
        (1, 3),
    ),
    "flex_attention_backward": (0, 2),
}
_NAMES = {1: "query", 3: "value", 0: "query", 2: "value"}


def recomputed_macs(func: Any, macs: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Returns how many of the ``macs`` of a call of ``func`` (an op, or a higher-order op) repeat the forward.

    Three of the five products take S T D each (Q K^T, dQ, dK), two take S T V (dP, dV): of 3 D + 2 V, D is recomputed.
    """
    places = _places(func)
    if places is None:
        return 0
    query, value = (args[place] if place < len(args) else kwargs[_NAMES[place]] for place in places)
    return int(macs * query.shape[-1] // (3 * query.shape[-1] + 2 * value.shape[-1]))


@lru_cache(maxsize=1024)
def _places(func: Any) -> tuple[int, int] | None:
    name = getattr(func, "name", None)  # a Triton kernel's name is no function
    return BACKWARDS.get(name().rpartition("::")[2].partition(".")[0]) if callable(name) else None
