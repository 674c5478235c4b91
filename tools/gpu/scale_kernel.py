"""An op made of one Triton kernel; imported where Triton is installed."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor
from torch.library import triton_op, wrap_triton

_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _scale(source, target, factor, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def,unused-ignore]
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = places < size
    tl.store(target + places, tl.load(source + places, mask=inside) * factor, mask=inside)


@triton_op("distprof_gpu_check::scale", mutates_args={})
def scale(x: Tensor, factor: float) -> Tensor:
    output = torch.empty_like(x)
    wrap_triton(_scale)[(triton.cdiv(x.numel(), _BLOCK),)](x, output, factor, x.numel(), BLOCK=_BLOCK)
    return output
