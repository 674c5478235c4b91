"""A strided nested tensor, created in the model or passed to it: it has no shape, and torch runs special ops for it."""
# ranks: 1
# arguments: inside
# arguments: outside

import sys

import torch
from torch import nn

WIDTH, LENGTHS = 16, (5, 9, 2)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        y: torch.Tensor = self.linear(torch.nested.nested_tensor(x) if isinstance(x, list) else x)
        return y


torch.manual_seed(0)
model = Model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(12):
    texts = [torch.randn(length, WIDTH) for length in LENGTHS]
    output = model(texts if sys.argv[1] == "inside" else torch.nested.nested_tensor(texts))
    torch.stack([sample.sum() for sample in output.unbind()]).sum().backward()
    print(step, [None if p.grad is None else float(p.grad.norm()).hex() for p in model.parameters()])
    optimizer.step()
    optimizer.zero_grad()
