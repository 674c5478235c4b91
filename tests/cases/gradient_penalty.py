"""A critic with a gradient penalty: autograd.grad with create_graph, and a backward through it (pytorch#131753)."""

# ranks: 1
# arguments:
import torch
from torch import nn

torch.manual_seed(0)
critic = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
for step in range(12):
    x = torch.randn(4 if step != 5 else 6, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    loss = critic(x.detach()).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(
        step,
        loss.item(),
        x.requires_grad,
        [None if p.grad is None else p.grad.sum().item() for p in critic.parameters()],
    )
