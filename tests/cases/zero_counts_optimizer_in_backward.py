"""Four parameters, stepped in backward by torch's own helper."""
# ranks: 1

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward  # type: ignore[attr-defined]

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
_apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 1e-3})
x = torch.randn(8, 64)
for step in range(30):
    loss = model(x).square().mean()
    loss.backward()
    print(step, loss.item(), flush=True)
