"""Trains a model for some iterations, plain or recorded, and returns the losses and the report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import distprof
from distprof.merge.report import ModuleStats, Report

#: The first iterations are not recorded, one is counted, and the others are timed.
WARMUP, TIMED = 3, 10
ITERATIONS = WARMUP + 1 + TIMED
#: Returns the loss of one iteration.
Loss = Callable[[], Tensor]


def train(model: nn.Module, loss: Loss, iterations: int = ITERATIONS) -> list[float]:
    """Trains with SGD and returns the losses, read after the last iteration: reading one waits for the device."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(iterations):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return [float(value) for value in losses]


def train_recorded(model: nn.Module, loss: Loss, **settings: Any) -> tuple[list[float], Report]:
    """Trains for :data:`ITERATIONS` iterations, all but the warm-up recorded; returns the losses and the report."""
    with tempfile.TemporaryDirectory(prefix="distprof-gpu-") as out:
        with distprof.record(out, "check", warmup=WARMUP, timed=TIMED, **settings) as run:
            losses = train(model, loss)
        return losses, run.report().report


def module(report: Report, name: str) -> ModuleStats:
    """Returns the row of the module whose path ends with ``name``.  Raises LookupError if there is not just one."""
    found = [row for row in report.modules if row.name == name]
    if len(found) != 1:
        raise LookupError(f"{len(found)} modules are called {name!r}: {[row.name for row in report.modules]}")
    return found[0]
