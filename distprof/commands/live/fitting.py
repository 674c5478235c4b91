"""Which columns of the table of ``distprof top`` fit into a terminal, and how wide each is."""

from __future__ import annotations

from collections.abc import Mapping

#: Columns of text: a long one is cut down to this width before another column is left out.
_TEXTS = frozenset({"rank", "place", "host", "phase", "module", "collective", "state"})
_LEAST = 13
#: Columns that a narrow terminal does without, the first one first.
_LEFT_OUT = ("data wait", "memory", "host", "place", "slowest", "phase", "waits", "module", "collective", "lag")
#: Spaces between two columns.
_GAP = 2


def fitting(widths: Mapping[str, int], room: int) -> dict[str, int]:
    """Returns the width of each column that is shown, in their order; ``widths`` are those that they would like."""
    chosen = dict(widths)
    for column in _LEFT_OUT:
        if _total({name: _least(name, width) for name, width in chosen.items()}) <= room:
            break
        chosen.pop(column, None)
    while (excess := _total(chosen) - room) > 0:
        longest = max(chosen, key=lambda name: chosen[name] - _least(name, chosen[name]))
        spare = chosen[longest] - _least(longest, chosen[longest])
        if spare <= 0:
            break
        chosen[longest] -= min(spare, excess)
    return chosen


def _least(column: str, width: int) -> int:
    return min(width, _LEAST) if column in _TEXTS else width


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)
