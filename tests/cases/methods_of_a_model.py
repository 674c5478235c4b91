"""A model of which the script calls methods, never forward, as actor-critics and autoencoders are called."""

# ranks: 1

from __future__ import annotations

import torch
from torch import Tensor, nn


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.actor, self.critic = nn.Linear(32, 4), nn.Linear(32, 1)

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.network(x)
        return self.actor(hidden), self.critic(hidden)


torch.manual_seed(0)
agent = Agent()
optimizer = torch.optim.SGD(agent.parameters(), lr=0.1)
for _step in range(20):
    logits, value = agent.act(torch.randn(16, 8))
    loss = logits.square().mean() + value.square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"loss {loss.item():.9g}")
