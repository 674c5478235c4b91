"""A batch of 64 texts of 512 tokens, in Python lists, goes through text transforms that are modules, then a model."""
# ranks: 1

from typing import Any

import torch
from torch import Tensor, nn


class Lower(nn.Module):
    """A text transform."""

    def forward(self, texts: Any) -> Any:
        return texts


class Model(nn.Module):
    """The first token of each text, embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(*[Lower() for _ in range(6)])
        self.table = nn.Embedding(600, 4)

    def forward(self, texts: list[list[int]]) -> Tensor:
        embedded: Tensor = self.table(torch.tensor([tokens[0] for tokens in self.steps(texts)]))
        return embedded


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = [list(range(first, first + 512)) for first in range(64)]
    for step in range(24):
        loss = model(batch).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(step, loss.item(), flush=True)
