"""Tests of named pauses, on a clock that runs on in what is collected or compiled."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from support.recording import MS, Ticking, clock, record
from torch import nn

from distprof.records import Pauses, Timeline


@pytest.fixture(autouse=True)
def collections_only_when_asked() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class SlowToFree:
    """Garbage in a cycle, whose end takes some time."""

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds, self.itself = milliseconds, self

    def __del__(self) -> None:
        clock.advance_ms(self.milliseconds)


def train(model: nn.Module, between: Callable[[int], object]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(4):
        model(torch.ones(4)).sum().backward()
        between(step)
        optimizer.step()


def named(pauses: Pauses) -> list[tuple[str, float]]:
    lengths = (pauses.end_ns - pauses.start_ns) / MS
    return [(pauses.names[name], length) for name, length in zip(pauses.name, lengths.tolist(), strict=True)]


def test_collections_are_named_with_their_generation(tmp_path: Path) -> None:
    """Those of a millisecond or more, in the step in which they were."""

    def collect(step: int) -> None:
        for generation, milliseconds in [(2, 5), (0, 1.5)] if step == 1 else [(1, 0.9)]:
            SlowToFree(milliseconds)
            gc.collect(generation)

    callbacks = gc.callbacks[:]
    found = record(tmp_path, lambda: train(Ticking(1, 1), collect), timed=3)
    assert gc.callbacks == callbacks
    (pauses,) = found.of(Pauses)
    assert pauses.iteration == 1
    assert named(pauses) == [("garbage collection, generation 2", 5), ("garbage collection, generation 0", 1.5)]
    timeline = found.of(Timeline)[1]
    assert timeline.start_ns <= pauses.start_ns[0] and pauses.end_ns[-1] <= timeline.end_ns


@pytest.mark.usefixtures("fresh_compiler")
def test_compilations_are_named(tmp_path: Path) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        clock.advance_ms(7)
        return graph.forward

    @torch.compile(backend=backend, dynamic=False)
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    found = record(tmp_path, lambda: train(Ticking(1, 1), lambda step: double(torch.ones(2 + step // 2))), timed=4)
    assert [(pauses.iteration, named(pauses)) for pauses in found.of(Pauses)] == [
        (0, [("compilation", 7)]),
        (2, [("compilation", 7)]),
    ]


def test_a_script_that_clears_the_callbacks_is_left_alone(tmp_path: Path) -> None:
    others = gc.callbacks[:]
    found = record(tmp_path, lambda: train(Ticking(1, 1), lambda step: gc.callbacks.clear()), timed=2)
    gc.callbacks[:] = others
    assert len(found.of(Timeline)) == 2 and not found.of(Pauses)
