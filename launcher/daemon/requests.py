"""A user's request for a recording window, as daemons pass it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_MOST = 1_000_000_000  # iterations
_MOST_RANKS = 1 << 20
_NUMBERS = ("number", "start", "counted", "timed", "window", "traced")


@dataclass(frozen=True)
class WindowRequest:
    """A window of all ranks, or of ``ranks``: ``counted`` (0 or 1), ``timed`` and ``traced`` iterations from number
    ``start`` on.

    ``number`` grows from request to request of a run; ``window`` is the number of the window in the shards.
    """

    number: int
    start: int
    counted: int
    timed: int
    window: int
    ranks: tuple[int, ...] | None = None
    traced: int = 0  # by torch.profiler

    def message(self) -> dict[str, Any]:
        return asdict(self)


def window_request(message: Mapping[str, Any]) -> WindowRequest:
    """Returns the request in a message.  Raises ValueError if it is none."""
    number, start, counted, timed, window, traced = (_number(message.get(name)) for name in _NUMBERS)
    if number < 1 or counted > 1 or counted + timed + traced < 1:
        raise ValueError("a request is for one counted iteration at most, and for at least one in all")
    ranks = message.get("ranks")
    if ranks is None:
        return WindowRequest(number, start, counted, timed, window, None, traced)
    if not isinstance(ranks, list | tuple) or len(ranks) > _MOST_RANKS or not all(type(rank) is int for rank in ranks):
        raise ValueError("ranks are a list of numbers")
    return WindowRequest(number, start, counted, timed, window, tuple(ranks), traced)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError("a request needs six numbers")
    return value
