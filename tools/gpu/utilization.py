"""MFU of a large model of bf16 matrix products, against the same quotient from this script's own numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gpu.finding import Finding, equal, near
from gpu.training import train_recorded

_LAYERS = 8


def utilization(device: torch.device) -> list[Finding]:
    on_gpu = device.type == "cuda"
    width = 8192 if on_gpu else 256
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(_LAYERS))).to(device, dtype)
    x = torch.randn(width, width, device=device, dtype=dtype)

    def loss() -> Tensor:
        value: Tensor = model(x).float().square().mean()
        return value

    _, report = train_recorded(model, loss)
    product = width**3
    work = 3 * _LAYERS - 1  # products: forward, gradients of weights, gradients of all inputs but the first
    (root,) = (row for row in report.modules if row.parent < 0)
    (rank,) = report.ranks
    seconds = (rank.iteration_ns or 0) / 1e9
    found = report.utilization
    rows = [
        equal("MACs of the forward", root.macs, float(_LAYERS * product)),
        equal("flops of the model", found.model_flops_per_rank, float(2 * work * product)),
        Finding("TFLOP/s at the median iteration", f"{2 * work * product / seconds / 1e12:,.1f}"),
    ]
    if found.mfu is None:
        return [*rows, Finding("MFU", f"n/a: {found.unavailable}")]
    peak = sum(one.tflops * one.share for one in found.peaks)
    own = 100 * 2 * work * product / seconds / 1e12 / peak
    return [*rows, near(f"MFU at a peak of {peak:,.0f} TFLOP/s", 100 * found.mfu.at_median, own, "%", relative=0.02)]
