"""Arrays that many ranks recorded alike, such as the calls and the work of a model's modules: kept once."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.records import Array, Counts

_OF_COUNTS = tuple(field.name for field in fields(Counts) if "dtype" in field.metadata)


class SharedArrays:
    """Returns one object for arrays of equal content; ranks with the same array are then found by identity."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Array] = {}

    def of_rank(self, data: RankData) -> RankData:
        """Returns the rank with the arrays of its windows shared."""
        return replace(data, windows={key: self._window(window) for key, window in data.windows.items()})

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
