"""What many ranks recorded alike, such as the calls and the work of a model's modules: kept once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.plain import replace
from distprof.records import Array, Counts, ExpertLayer

_OF_COUNTS = tuple(field.name for field in fields(Counts) if "dtype" in field.metadata)
_OTHERS = tuple(field.name for field in fields(Counts) if "dtype" not in field.metadata)
#: Objects that are found again by their ids, of each kind: those of ranks that were read together.
_MOST_MET = 100


class SharedValues:
    """Returns one object for counts, arrays and MoE layers of equal content; ranks with the same are then found by
    identity.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Array] = {}
        self._counts: dict[Hashable, Counts] = {}
        self._layers: dict[tuple[ExpertLayer, ...], tuple[ExpertLayer, ...]] = {}
        # By the id of what was met, which is kept, so that it stays its own.
        self._met: dict[int, tuple[Array, Array]] = {}
        self._met_counts: dict[int, tuple[Counts, Counts]] = {}
        self._met_layers: dict[int, tuple[tuple[ExpertLayer, ...], tuple[ExpertLayer, ...]]] = {}

    def of_rank(self, data: RankData) -> RankData:
        """Returns the rank with its layers, and with what its windows have, shared."""
        windows = {key: self._window(window) for key, window in data.windows.items()}
        return replace(data, layers=self._shared_layers(data.layers), windows=windows)

    def _window(self, window: Window) -> Window:
        changed: dict[str, Any] = {}
        if window.counts is not None:
            changed["counts"] = self._shared_counts(window.counts)
        if window.times is not None:
            changed["times"] = replace(window.times, calls=self._shared(window.times.calls))
        return replace(window, **changed)

    def _shared_counts(self, counts: Counts) -> Counts:
        """Returns the first equal counts; the ranks of a chunk that is unpacked share objects."""
        if id(counts) not in self._met_counts:
            if len(self._met_counts) >= _MOST_MET:
                self._met_counts.clear()
            self._met_counts[id(counts)] = counts, self._first_counts(counts)
        return self._met_counts[id(counts)][1]

    def _first_counts(self, counts: Counts) -> Counts:
        arrays: dict[str, Any] = {name: self._shared(getattr(counts, name)) for name in _OF_COUNTS}
        others = (getattr(counts, name) for name in _OTHERS)
        key = *map(id, arrays.values()), *(tuple(one.items()) if isinstance(one, dict) else one for one in others)
        if key not in self._counts:
            self._counts[key] = replace(counts, **arrays)
        return self._counts[key]

    def _shared(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the first array with this content; an array of Python ints as it is."""
        if array.dtype == object:
            return array
        met = self._met.get(id(array))
        if met is None:
            content = array.tobytes()
            same = self._known.setdefault((array.dtype.str, content), np.frombuffer(content, array.dtype))
            if len(self._met) >= _MOST_MET:
                self._met.clear()
            met = self._met[id(array)] = array, same
        return met[1]

    def _shared_layers(self, layers: tuple[ExpertLayer, ...]) -> tuple[ExpertLayer, ...]:
        """Returns the first equal layers; the ranks of a chunk have the same object, so comparing them is rare."""
        if id(layers) not in self._met_layers:
            self._met_layers[id(layers)] = layers, self._layers.setdefault(layers, layers)
        return self._met_layers[id(layers)][1]
