"""Record the training of Lightning: ``Trainer(..., callbacks=[DistprofCallback()])``.

python lightning_callback.py --steps 20
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import distprof


class DistprofCallback(lightning.Callback):  # type: ignore[misc]
    """Records from the begin of the training to its end; rank 0 prints the first page of the report."""

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        """``settings`` are those of :func:`distprof.record`, such as ``warmup`` and ``timed``.  In a job of several
        ranks all give the same ``name``.
        """
        self._name, self._settings = name, settings
        self._recording = ExitStack()
        self._run: Any = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._run = self._recording.enter_context(distprof.record(name=self._name, **self._settings))

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._recording.close()
        if trainer.is_global_zero:  # other ranks may still write: distprof.load(run) later has all of them
            print(self._run.report())

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._recording.close()


class Classifier(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, labels = batch
        return nn.functional.cross_entropy(self.layers(x), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(4096, 32), torch.randint(10, (4096,)))
    trainer = lightning.Trainer(
        max_steps=options.steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[DistprofCallback("lightning", warmup=2, timed=5)],
    )
    trainer.fit(Classifier(), DataLoader(data, batch_size=64))


if __name__ == "__main__":
    main()
