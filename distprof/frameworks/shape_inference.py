"""Calls in which a framework tries a model out: what runs there is real, and no work of the job.

torch.distributed.pipelining runs a forward and a backward of each stage to learn shapes, before the first step and
whenever training follows evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from distprof.hooks.patches import FunctionPatch, OnError

#: module -> (class, method), as torch's versions call them.
_REHEARSALS = {
    "torch.distributed.pipelining.stage": (
        ("PipelineStage", "_forward_metadata_inference"),
        ("PipelineStage", "_backward_metadata_inference"),
        ("PipelineStage", "_shape_inference"),
    ),
}


class ShapeInference:
    """Tells when a rehearsal begins and ends; they do not nest in one another."""

    def __init__(self, began: Callable[[], None], ended: Callable[[], None], on_error: OnError) -> None:
        self._began = began
        self._ended = ended
        self._on_error = on_error
        self._doors: dict[tuple[str, str], FunctionPatch] = {}
        self._codes: set[CodeType] = set()

    def open(self) -> None:
        """See those of all frameworks that are loaded by now."""
        for holder, name in _loaded():
            if (holder.__qualname__, name) not in self._doors:
                self._codes.add(getattr(holder, name).__code__)
                door = FunctionPatch(((holder, name),), "a rehearsal", self._on_error)
                self._doors[holder.__qualname__, name] = door
                door.open(self)

    def close(self) -> None:
        for door in self._doors.values():
            door.close()
        self._doors.clear()

    def running(self) -> bool:
        """Whether this thread is inside of one that began before it could be seen."""
        frame: Any = sys._getframe() if self._codes else None
        while frame is not None and frame.f_code not in self._codes:
            frame = frame.f_back
        return frame is not None

    def begin(self, args: tuple[Any, ...]) -> None:
        self._began()

    def end(self) -> None:
        self._ended()


def _loaded() -> Iterator[tuple[Any, str]]:
    """(class, method)"""
    for module, methods in _REHEARSALS.items():
        for kind, method in methods:
            holder = getattr(sys.modules.get(module), kind, None)
            if hasattr(holder, method):
                yield holder, method
