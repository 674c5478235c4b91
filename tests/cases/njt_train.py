"""Attention over jagged nested tensors, whose samples have different lengths."""
# ranks: 1

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, LENGTHS = 32, 4, (5, 9, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [each(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for each in (self.q, self.k, self.v)]
        y: torch.Tensor = self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2))
        return y


torch.manual_seed(0)
model = Attention()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(12):
    batch = torch.nested.nested_tensor([torch.randn(length, WIDTH) for length in LENGTHS], layout=torch.jagged)
    model(batch).values().sum().backward()
    print(step, [None if p.grad is None else float(p.grad.norm()).hex() for p in model.parameters()])
    optimizer.step()
    optimizer.zero_grad()
