"""A Triton kernel of the user's own, counted by the formula that the user registers for it."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn

import distprof
from gpu.finding import Finding, equal, needs_gpu
from gpu.training import train_recorded

_SIZE = 4096


def triton_kernels(device: torch.device) -> list[Finding]:
    if device.type != "cuda" or find_spec("triton") is None:
        return needs_gpu("flops of a user's Triton kernel")
    from gpu.scale_kernel import scale

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(_SIZE))

        def forward(self, x: Tensor) -> Tensor:
            scaled: Tensor = scale(x, 2.0)
            return (scaled * self.weight).sum()

    distprof.register_formula(scale, flops=lambda x, factor, out_shape=None: x[0])
    model = Scale().to(device)
    x = torch.ones(_SIZE, device=device)
    _, report = train_recorded(model, lambda: model(x))
    (root,) = (row for row in report.modules if row.parent < 0)
    # The kernel; the product with the weight; the sum, which adds one number less than it reads.
    return [equal("flops of the forward", root.flops, float(_SIZE + _SIZE + _SIZE - 1))]
