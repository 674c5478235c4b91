"""Lightning's DDP."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

lightning: Any = importlib.import_module("lightning")


class Model(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Any:
        return self.body(x)

    def training_step(self, batch: list[Tensor], _: int) -> Any:
        return self(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def ddp() -> int:
    model = Model()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, limit_train_batches=3, logger=False, **quiet
    )
    data = TensorDataset(torch.ones(12, 8))
    trainer.fit(model, DataLoader(data, batch_size=2))
    return sum(parameter.numel() for parameter in model.parameters())


SCENARIOS: dict[str, Callable[[], int]] = {"ddp": ddp}
