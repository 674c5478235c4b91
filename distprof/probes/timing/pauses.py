"""Pauses of one step that have a name: garbage collections, and compilations by torch's compiler."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import Any

import numpy as np

from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.records import LONG_TURN_NS, Pauses

COMPILATION = "compilation"
_DYNAMO_CALLBACKS = "torch._dynamo.callback"


class PauseRecorder:
    """Notes the pauses of the calling thread that are as long as a long turn.

    A collection on another thread stops this one too, because it holds Python's lock: it is noted as well.
    """

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self._mono_ns = mono_ns
        self._thread = get_ident()
        self._found: list[tuple[str, int, int]] = []
        self._collection_ns = self._compilation_ns = 0  # when the running one began
        self._dynamo: Any = None  # torch's list of callbacks, while ours are in it

    def open(self) -> None:
        gc.callbacks.append(self._collects)
        handler: Any = getattr(sys.modules.get(_DYNAMO_CALLBACKS), "callback_handler", None)
        if hasattr(handler, "register_start_callback") and hasattr(handler, "remove_start_callback"):
            self._dynamo = handler
            handler.register_start_callback(self._compiles)
            handler.register_end_callback(self._compiled)

    def close(self) -> None:
        with suppress(ValueError):  # the script may have removed it
            gc.callbacks.remove(self._collects)
        dynamo, self._dynamo = self._dynamo, None
        if dynamo is not None:
            for remove, ours in (
                (dynamo.remove_start_callback, self._compiles),
                (dynamo.remove_end_callback, self._compiled),
            ):
                with suppress(ValueError):
                    remove(ours)

    def record(self, iteration: int, mode: str, start_ns: int, window: int) -> Pauses | None:
        """Returns the pauses since ``start_ns``, when the step began, and forgets them; None if there were none."""
        if not self._found:
            return None
        found = [pause for pause in self._found if pause[1] >= start_ns]
        self._found.clear()
        if not found:
            return None
        names = tuple(dict.fromkeys(name for name, _, _ in found))
        return Pauses(
            iteration,
            mode,
            names,
            np.array([names.index(name) for name, _, _ in found], "<i4"),
            np.array([start for _, start, _ in found], "<i8"),
            np.array([end for _, _, end in found], "<i8"),
            window=window,
        )

    def _note(self, name: str, start_ns: int) -> None:
        if start_ns and (now := self._mono_ns()) - start_ns >= LONG_TURN_NS:
            self._found.append((name, start_ns, now))

    @hidden_from_dynamo
    def _collects(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collection_ns = self._mono_ns()
        else:
            self._note(f"garbage collection, generation {info.get('generation', '?')}", self._collection_ns)

    @hidden_from_dynamo
    def _compiles(self, *_: Any) -> None:
        self._compilation_ns = self._mono_ns() if get_ident() == self._thread else 0

    @hidden_from_dynamo
    def _compiled(self, *_: Any) -> None:
        if get_ident() == self._thread:
            self._note(COMPILATION, self._compilation_ns)
            self._compilation_ns = 0
