"""Detects calls in which a framework infers shapes: they really run the model, but are no work of the job.

torch.distributed.pipelining runs a forward and a backward of each stage to infer shapes, before the first step and
whenever training follows evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from distprof.hooks.patches import FunctionPatch, OnError

#: module -> (class, method), with the names of all torch versions.
_METHODS = {
    "torch.distributed.pipelining.stage": (
        ("PipelineStage", "_forward_metadata_inference"),
        ("PipelineStage", "_backward_metadata_inference"),
        ("PipelineStage", "_shape_inference"),
    ),
}


class ShapeInference:
    """Calls ``began`` and ``ended`` around each shape inference; these do not nest."""

    def __init__(self, began: Callable[[], None], ended: Callable[[], None], on_error: OnError) -> None:
        self._began = began
        self._ended = ended
        self._on_error = on_error
        self._patches: dict[tuple[str, str], FunctionPatch] = {}
        self._codes: set[CodeType] = set()

    def open(self) -> None:
        """Patches the methods of all frameworks that are loaded by now."""
        for owner, name in _loaded_methods():
            if (owner.__qualname__, name) not in self._patches:
                self._codes.add(getattr(owner, name).__code__)
                patch = FunctionPatch(((owner, name),), "shape inference", self._on_error)
                self._patches[owner.__qualname__, name] = patch
                patch.open(self)

    def close(self) -> None:
        """Takes all patches back."""
        for patch in self._patches.values():
            patch.close()
        self._patches.clear()

    def running(self) -> bool:
        """Whether this thread is inside shape inference that began before it was patched."""
        frame: Any = sys._getframe() if self._codes else None
        while frame is not None and frame.f_code not in self._codes:
            frame = frame.f_back
        return frame is not None

    def begin(self, args: tuple[Any, ...]) -> None:
        """Is called by the patches before a patched method runs, with its arguments."""
        self._began()

    def end(self) -> None:
        """Is called by the patches when the method has ended."""
        self._ended()


def _loaded_methods() -> Iterator[tuple[Any, str]]:
    """Yields (class, method) for each method that is loaded."""
    for module, methods in _METHODS.items():
        for kind, method in methods:
            owner = getattr(sys.modules.get(module), kind, None)
            if hasattr(owner, method):
                yield owner, method
