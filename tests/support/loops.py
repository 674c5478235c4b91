"""Training loops whose optimizer takes 3 ms on the test's clock."""

from __future__ import annotations

from collections.abc import Callable

import torch
from support.recording import Ticking, clock, total
from torch import Tensor, nn

X = torch.ones(4, 8)


def sgd(*models: nn.Module) -> torch.optim.Optimizer:
    """Returns an optimizer whose steps take 3 ms."""
    optimizer = torch.optim.SGD([parameter for model in models for parameter in model.parameters()], lr=0.01)
    optimizer.register_step_pre_hook(lambda *_: clock.advance_ms(3))
    return optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor = X) -> None:
    total(model(x)).backward()
    optimizer.step()
    optimizer.zero_grad()


def training(steps: int, model: nn.Module | None = None) -> Callable[[], None]:
    """Returns a job of plain training."""

    def job() -> None:
        trained = model or nn.Sequential(Ticking(10, 20), Ticking(1, 2))
        optimizer = sgd(trained)
        for _ in range(steps):
            step(trained, optimizer)

    return job
