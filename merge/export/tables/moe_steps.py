"""Makes the table of MoE layers by step: how unequal the loads of experts and ep ranks are in each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from distprof.merge.export.tables.table import Maker, RowTable
from distprof.merge.report import LoadOverSteps, LoadsByStep, Report


class _Step(NamedTuple):
    layer: str
    place: int  # of the iteration
    found: LoadOverSteps


def _rows(report: Report) -> Iterator[_Step]:
    for layer in report.experts:
        found = layer.over_steps
        if found is not None:
            yield from (_Step(layer.name, place, found) for place in range(len(found.iterations)))


def _measures(
    what: str, pick: Callable[[LoadOverSteps], LoadsByStep | None], prefix: str = ""
) -> Iterator[Maker[_Step]]:
    """Yields the columns of all measures of balance."""
    texts = {
        "max_violation": f"MaxVio of {what}, 0 = balanced; empty for a step without tokens",
        "cv": f"standard deviation / mean load of {what}, 0 = balanced",
        "entropy": f"normalised entropy of the loads of {what}, 1 = balanced",
        "gini": f"Gini coefficient of the loads of {what}, 0 = balanced",
        "hottest": f"of {what}, the one with the largest load",
        "coldest": f"of {what}, the one with the smallest load",
    }

    def column(name: str) -> Callable[[_Step], Any]:
        return lambda row: _at(getattr(pick(row.found), name, ()), row.place)

    for name, text in texts.items():
        yield Maker(f"{prefix}{name}", text, column(name))


def _at(values: tuple[Any, ...], place: int) -> Any:
    return values[place] if values else None


MOE_STEPS: RowTable[_Step] = RowTable(
    "moe_steps",
    "one MoE layer in one timed step, over all ranks",
    _rows,
    (
        Maker("layer", "its module", lambda row: row.layer),
        Maker("iteration", "its number", lambda row: row.found.iterations[row.place]),
        *_measures("experts", lambda found: found),
        *_measures("ep ranks", lambda found: found.ep, "ep_"),
        Maker("dead", "experts without a token", lambda row: row.found.dead[row.place]),
        Maker("dropped", "choices of the routers that were dropped", lambda row: _at(row.found.dropped, row.place)),
        Maker("drop_rate", "dropped / all choices of routers", lambda row: _at(row.found.drop_rate, row.place)),
    ),
)
