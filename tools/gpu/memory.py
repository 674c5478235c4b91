"""The peak of the allocator in a report, against torch's own figure of the same training without recording."""

from __future__ import annotations

import torch
from torch import nn

from gpu.finding import Finding, equal, near, needs_gpu
from gpu.training import ITERATIONS, train, train_recorded

_WIDTH, _ROWS = 4096, 8192


def memory(device: torch.device) -> list[Finding]:
    if device.type != "cuda":
        return needs_gpu("peak memory of the allocator")
    model = nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH) for _ in range(4))).to(device)
    x = torch.randn(_ROWS, _WIDTH, device=device)

    def loss() -> torch.Tensor:
        value: torch.Tensor = model(x).square().mean()
        return value

    torch.cuda.reset_peak_memory_stats(device)
    train(model, loss, ITERATIONS)
    truth = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    _, report = train_recorded(model, loss)
    (rank,) = report.ranks
    return [
        equal("source of the figure", rank.memory_source, "allocator"),
        near("peak memory", (rank.peak_memory_bytes or 0) / 1e6, truth / 1e6, "MB", relative=0.02),
        equal("bytes of parameters", rank.parameter_bytes, sum(p.nbytes for p in model.parameters())),
    ]
