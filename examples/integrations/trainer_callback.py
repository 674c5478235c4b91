"""Record the training of transformers' Trainer: ``Trainer(..., callbacks=[DistprofCallback()])``.

python trainer_callback.py --steps 20
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import distprof


class DistprofCallback(TrainerCallback):  # type: ignore[misc]
    """Records from the begin of the training to its end; rank 0 prints the first page of the report."""

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        """``settings`` are those of :func:`distprof.record`, such as ``warmup`` and ``timed``.  In a job of several
        ranks all give the same ``name``.
        """
        self._name, self._settings = name, settings
        self._recording = ExitStack()
        self._run: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._run = self._recording.enter_context(distprof.record(name=self._name, **self._settings))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._recording.close()
        if state.is_world_process_zero:  # other ranks may still write: distprof.load(run) later has all of them
            print(self._run.report())


class Digits(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        noise = torch.Generator().manual_seed(index)
        return {"x": torch.randn(32, generator=noise), "labels": torch.tensor(index % 10)}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    args = TrainingArguments(
        output_dir="trainer", max_steps=options.steps, report_to=[], save_strategy="no", use_cpu=True
    )
    callback = DistprofCallback("trainer", warmup=2, timed=5)
    Trainer(Classifier(), args, train_dataset=Digits(), callbacks=[callback]).train()


if __name__ == "__main__":
    main()
