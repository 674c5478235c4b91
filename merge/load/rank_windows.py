"""The windows of one rank, from the records of its shard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from distprof.merge.load.collectives import join_steps
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.window import Window, WindowRecords, build_window
from distprof.plain import replace
from distprof.records import (
    FORWARD,
    TRAINING,
    Collectives,
    CollectiveWindow,
    Counts,
    ExpertLayer,
    ExpertLoad,
    ExpertRouting,
    Ops,
    Pauses,
    Record,
    Step,
    Timeline,
)

Kind = TypeVar("Kind", bound=Record)
OfWindow = TypeVar("OfWindow", Counts, Step, Ops)
Stepwise = TypeVar("Stepwise", Collectives, Timeline, Pauses)


class RecordsByKind:
    """The records of one shard, those of each kind in the order of the shard."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._found: dict[type, list[Any]] = {}
        for record in records:
            self._found.setdefault(type(record), []).append(record)

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Returns the records of a kind."""
        return self._found.get(kind, [])

    def last(self, kind: type[Kind]) -> Kind | None:
        """Returns the last record of a kind; None if there is none."""
        found = self.of(kind)
        return found[-1] if found else None


def rank_windows(
    records: RecordsByKind, tree: RankTree, layers: Sequence[ExpertLayer], steps: Sequence[Step]
) -> dict[tuple[str, int], Window]:
    """Returns the windows by mode and number, those that hold anything.  ``steps`` are the records of steps to use."""
    counts, every_ops, loads = records.of(Counts), records.of(Ops), records.of(ExpertLoad)
    routings = [routing for routing in records.of(ExpertRouting) if _fits(routing, layers)]
    recorded: list[Counts | Step] = [*counts, *steps]
    numbers = sorted({record.window for record in recorded})
    windows = {}
    for mode, number in itertools.product((TRAINING, FORWARD), numbers):
        own_counts, own_steps = _of(mode, number, counts), _of(mode, number, steps)
        if own_counts or own_steps:
            own = WindowRecords(
                mode=mode,
                number=number,
                counts=own_counts,
                steps=own_steps,
                loads=[load for load in loads if load.window == number],
                routings=[routing for routing in routings if routing.window == number],
                ops=next(reversed(_of(mode, number, every_ops)), None),
            )
            windows[mode, number] = _with_collectives(build_window(own, tree, layers), records)
    return windows


def _of(mode: str, number: int, records: Iterable[OfWindow]) -> list[OfWindow]:
    """Returns the records of one window of one mode."""
    return [record for record in records if (record.mode, record.window) == (mode, number)]


def _with_collectives(window: Window, records: RecordsByKind) -> Window:
    """Returns the window with what was recorded of the collectives of its steps."""
    iterations = set(window.iterations)

    def own(kind: type[Stepwise]) -> list[Stepwise]:
        return [one for one in records.of(kind) if one.mode == window.mode and one.iteration in iterations]

    joined = join_steps(own(Collectives), own(Timeline), own(Pauses))
    # Without them waits are not known, and with these the own times of layers.
    layers_ns = None if joined is None else window.layers_ns
    return replace(window, collective_window=records.last(CollectiveWindow), collectives=joined, layers_ns=layers_ns)


def _fits(routing: ExpertRouting, layers: Sequence[ExpertLayer]) -> bool:
    """Returns whether a routing record belongs to these layers."""
    experts = {number: layer.num_experts for number, layer in enumerate(layers)}
    lengths = [(one.layer, len(one.routed)) for one in routing.layers]
    lengths += [(one.layer, len(one.padding)) for one in routing.figures if one.masked_tokens]
    return all(experts.get(layer) == length for layer, length in lengths)
