"""Profiles some of its own steps with torch.profiler and Python stacks; it crashes if modules are imported while it
traces.
"""

# ranks: 1
# arguments: 0
# arguments: 3

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)


def ready(profiler: profile) -> None:
    counted = {event.key: event.count for event in profiler.key_averages(group_by_stack_n=5)}
    print("linear layers:", counted["aten::linear"] > 0)


with profile(
    activities=[ProfilerActivity.CPU],
    with_stack=True,
    schedule=schedule(skip_first=int(sys.argv[1]), wait=0, warmup=1, active=5, repeat=1),
    on_trace_ready=ready,
) as profiler:
    for _ in range(30):
        loss = model(torch.randn(4, 8)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        profiler.step()
print(f"trained: {loss.item()}")
