"""A teacher runs under inference_mode in every step, the student learns from it (pytorch#126268)."""

# ranks: 1
# arguments:
import torch
from torch import nn

torch.manual_seed(0)
teacher = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4)).eval().requires_grad_(False)
student = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))
optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
for step in range(12):
    x = torch.randn(4 if step != 5 else 5, 8)
    with torch.inference_mode():
        target = teacher(x)
        frozen = target.is_inference()
    loss = nn.functional.mse_loss(student(x), target.clone())
    loss.backward()
    print(step, loss.item(), frozen, [None if p.grad is None else p.grad.sum().item() for p in student.parameters()])
    optimizer.step()
    optimizer.zero_grad()
