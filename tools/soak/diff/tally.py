"""What diff said of pairs of runs, and how often it was right: by the bounds that diff itself gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from distprof.merge.diff.data import LESS, MORE, Diff, PlaceChange

#: Bounds of a change, as shares: the planted change can be seen if the noise is below it.
_BOUNDS = (0.025, 0.05, 0.1, float("inf"))


@dataclass
class Tally:
    """``planted``: (module, phase) that was made slower, by the share ``slower``.  ``sides``: what was compared."""

    planted: tuple[str, str]
    slower: float
    sides: str
    equal: int = 0
    false_alarms: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    judged: list[tuple[float, float, bool]] = field(default_factory=list)  # (bound, change, found) of the planted ones
    waited: float = 0.0  # the largest share of the time in which a run waited for processors

    @property
    def is_clean(self) -> bool:
        return not (self.false_alarms or self.misnamed)

    def add_equal(self, diff: Diff) -> None:
        """Adds a pair of equal runs: whatever is named, or would fail a job of CI, is a false alarm."""
        self.equal += 1
        named = dict.fromkeys([*map(_words, _named(diff)), *diff.worse_by(0.0)])
        if named:
            self.false_alarms.append(f"{diff.first} and {diff.second}: {', '.join(named)}")

    def add_slower(self, diff: Diff) -> None:
        """Adds a pair of which the second run has the slower module."""
        own = next((one for one in diff.places.changes if (one.subject, one.phase) == self.planted), None)
        bound = float("inf") if own is None or own.low is None or own.high is None else (own.high - own.low) / 2
        self.judged.append((bound, own.change if own else 0.0, own is not None and own.finding == MORE))
        others = [_words(one) for one in _named(diff) if (one.subject, one.phase) != self.planted]
        if others:
            self.misnamed.append(f"{diff.first} and {diff.second}: {', '.join(others)}")

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        module, phase = self.planted
        found = sum(hit for _, _, hit in self.judged)
        yield (
            f"diff, {self.sides}: {self.equal} equal pairs, {len(self.false_alarms)} false alarms; {len(self.judged)} "
            f"with {phase} of {module} {self.slower:.0%} slower, found in {found}, another place named in "
            f"{len(self.misnamed)}; runs waited for processors in up to {self.waited:.0%} of their time"
        )
        yield "bound that diff gave  pairs  found  change, mean"
        low = 0.0
        for high in _BOUNDS:
            own = [(change, hit) for bound, change, hit in self.judged if low <= bound < high or bound == high]
            title = f"{low:.1%} .. {high:.1%}" if high < float("inf") else f"{low:.1%} and more"
            mean = f"{sum(change for change, _ in own) / len(own):+.1%}" if own else ""
            yield f"{title:<20}  {len(own):>5}  {sum(hit for _, hit in own):>5}  {mean:>12}".rstrip()
            low = high
        for title, lines in (("false alarm", self.false_alarms), ("misnamed", self.misnamed)):
            yield from (f"{title}: {line}" for line in lines)


def _named(diff: Diff) -> list[PlaceChange]:
    return [one for one in diff.places.changes if one.finding in (MORE, LESS)]


def _words(one: PlaceChange) -> str:
    bounds = f" ({one.low:+.1%} .. {one.high:+.1%})" if one.low is not None and one.high is not None else ""
    return f"{one.phase} of {one.subject} {one.change:+.1%}{bounds}"
