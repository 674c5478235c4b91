"""Tests that a step's cost grows no faster than the job, measured in executed lines, not in seconds."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from support.recording import record
from torch import nn

import distprof
from distprof.records import Parameters, Tree

_OURS = str(Path(distprof.__file__).parent)


class Lines:
    """The lines of distprof that ran."""

    def __init__(self) -> None:
        self.run = 0

    def trace(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        self.run += event == "line"
        return self.trace


@contextmanager
def lines() -> Iterator[Lines]:
    """Counts the lines of distprof that run inside, on this thread."""
    counted, before = Lines(), sys.gettrace()
    sys.settrace(counted.trace)
    try:
        yield counted
    finally:
        sys.settrace(before)


def layers_in_a_list(many: int, steps: int = 4) -> Callable[[], None]:
    """A plain list of layers, each of which is a separate model."""

    def job() -> None:
        layers = [nn.Linear(4, 4) for _ in range(many)]
        optimizer = torch.optim.SGD([p for layer in layers for p in layer.parameters()], lr=1e-3)
        for _ in range(steps):
            x = torch.ones(2, 4)
            for layer in layers:
                x = layer(x)
            x.sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    return job


def test_many_models_take_as_many_times_the_work_of_few(tmp_path: Path) -> None:
    ran = {}
    for many in (50, 200):
        with lines() as counted:
            seen = record(tmp_path / str(many), layers_in_a_list(many), count=True, timed=1)
        ran[many] = counted.run
        assert len(seen.rows) == many
        assert len({record.root for record in seen.of(Parameters)}) == many
        assert len(seen.of(Tree)) == many
        assert seen.macs() == {"": 2 * 4 * 4} and len(seen.kinds) < 4 * many
    assert ran[200] < 5 * ran[50]


#: A case that is also run as a script: ``Model`` gives lists of tokens to modules that transform texts.
TOKEN_LISTS = Path(__file__).parents[2] / "cases" / "python_list_inputs_scanned.py"


@pytest.mark.usefixtures("both_ways")
def test_tokens_in_lists_are_not_scanned(tmp_path: Path) -> None:
    ran, token_model = {}, runpy.run_path(str(TOKEN_LISTS))["Model"]
    for tokens in (64, 1_024):
        model, texts = token_model(), [list(range(tokens)) for _ in range(tokens // 2)]
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        with lines() as counted:

            def job(model: nn.Module = model, texts: Any = texts, optimizer: Any = optimizer) -> None:
                for _ in range(4):
                    model(texts).sum().backward()
                    optimizer.step()

            record(tmp_path / str(tokens), job, count=True, timed=2)
        ran[tokens] = counted.run
    assert ran[1_024] < 1.1 * ran[64]
