"""Saved tensors go through hooks (save_on_cpu, pack and unpack of the script's own), anomaly detection is on, a scaler
skips steps with infinite gradients, and weights are parametrized.
"""

# ranks: 1
# arguments: hooks
# arguments: anomaly
# arguments: scaler
import sys
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations

torch.manual_seed(0)
model = nn.Sequential(
    parametrizations.weight_norm(nn.Linear(8, 16)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(16, 4))
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
packed: list[str] = []


def pack(x: torch.Tensor) -> Any:
    packed.append(f"{tuple(x.shape)}")
    return x.clone()


for step in range(14):
    x = torch.randn(4 if step != 5 else 6, 8)
    if sys.argv[1] == "hooks":
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autograd.graph.save_on_cpu():
            loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
    elif sys.argv[1] == "anomaly":
        with torch.autograd.set_detect_anomaly(True):
            loss = (model(x).square().mean() - (5.0 if step == 5 else -1.0)).sqrt()
            try:
                loss.backward()
            except RuntimeError as error:
                print(str(error)[:80])
                optimizer.zero_grad()
        optimizer.step()
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x).float().square().mean()
        scaler.scale(loss * (float("inf") if step == 5 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
    print(step, loss.item(), scaler.get_scale(), len(packed), [p.sum().item() for p in model.parameters()])
    optimizer.zero_grad()
