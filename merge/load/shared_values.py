"""What many ranks recorded alike, such as the calls and the work of a model's modules: kept once."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.records import Array, Counts, ExpertLayer

_OF_COUNTS = tuple(field.name for field in fields(Counts) if "dtype" in field.metadata)


class SharedValues:
    """Returns one object for arrays and MoE layers of equal content; ranks with the same are then found by identity."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Array] = {}
        self._layers: dict[tuple[ExpertLayer, ...], tuple[ExpertLayer, ...]] = {}
        # By the id of layers that were met, which are kept, so that it stays theirs.
        self._met: dict[int, tuple[tuple[ExpertLayer, ...], tuple[ExpertLayer, ...]]] = {}

    def of_rank(self, data: RankData) -> RankData:
        """Returns the rank with its layers, and with the arrays of its windows, shared."""
        windows = {key: self._window(window) for key, window in data.windows.items()}
        return replace(data, layers=self._shared_layers(data.layers), windows=windows)

    def _window(self, window: Window) -> Window:
        changed: dict[str, Any] = {}
        if window.counts is not None:
            arrays: dict[str, Any] = {name: self._shared(getattr(window.counts, name)) for name in _OF_COUNTS}
            changed["counts"] = replace(window.counts, **arrays)
        if window.times is not None:
            changed["times"] = replace(window.times, calls=self._shared(window.times.calls))
        return replace(window, **changed)

    def _shared(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the first array with this content; an array of Python ints as it is."""
        if array.dtype == object:
            return array
        content = array.tobytes()
        return self._known.setdefault((array.dtype.str, content), np.frombuffer(content, array.dtype))

    def _shared_layers(self, layers: tuple[ExpertLayer, ...]) -> tuple[ExpertLayer, ...]:
        """Returns the first equal layers; the ranks of a chunk have the same object, so comparing them is rare."""
        if id(layers) not in self._met:
            self._met[id(layers)] = layers, self._layers.setdefault(layers, layers)
        return self._met[id(layers)][1]
