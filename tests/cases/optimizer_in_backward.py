"""One optimizer a parameter, each stepped as its gradient arrives in backward, as torchtune's optimizer_in_bwd does."""
# ranks: 1
# arguments: 4 30
# arguments: 300 30

import sys

import torch
from torch import Tensor, nn

LAYERS, STEPS = map(int, sys.argv[1:])
torch.manual_seed(0)
model = nn.Sequential(*[nn.Linear(16, 16, bias=False) for _ in range(LAYERS)])
optimizers = {parameter: torch.optim.SGD([parameter], lr=1e-3) for parameter in model.parameters()}


def step_one(parameter: Tensor) -> None:
    optimizers[parameter].step()  # type: ignore[index]
    optimizers[parameter].zero_grad()  # type: ignore[index]


for parameter in model.parameters():
    parameter.register_post_accumulate_grad_hook(step_one)
x = torch.randn(4, 16)
for step in range(STEPS):
    loss = model(x).square().mean()
    loss.backward()
    print(step, loss.item(), flush=True)
