"""Which ranks at one place hold different models: they are no replicas, and form no cohort."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from distprof.merge.job.topology import JobTopology
from distprof.merge.load.parameters import Held
from distprof.merge.load.run import LoadedRun


def with_kinds(run: LoadedRun, layout: JobTopology) -> JobTopology:
    """Returns ``layout``, with the kind of each rank where ranks at one place hold different parameters."""
    held = held_by_rank(run, layout)
    if not any(conflicting(own) for own in ranks_by_holding(held, layout).values()):
        return layout
    kinds: dict[Held, int] = {}
    return replace(layout, kinds={rank: kinds.setdefault(own, len(kinds)) for rank, own in held.items()})


def held_by_rank(run: LoadedRun, layout: JobTopology) -> dict[int, Held]:
    """Returns what each rank holds, for the ranks whose shard is whole."""
    recorded = (data for data in run.ranks if data.parameters.rank_numel is not None and not data.report.damaged)
    return {data.rank: data.parameters.held(frozenset(layout.own)) for data in recorded}


def ranks_by_holding(held: Mapping[int, Held], layout: JobTopology) -> dict[tuple[int, ...], dict[Held, list[int]]]:
    """Returns, by place, what its ranks hold, and which ranks hold that."""
    places: dict[tuple[int, ...], dict[Held, list[int]]] = {}
    for rank, own in held.items():
        places.setdefault(layout.place(rank), {}).setdefault(own, []).append(rank)
    return places


def conflicting(held: Iterable[Held]) -> tuple[Held, Held] | None:
    """Returns two holdings of which each has a model that the other has not; one may have a model more."""
    seen = list(held)
    pairs = ((one, other) for number, one in enumerate(seen) for other in seen[number + 1 :])
    return next(((one, other) for one, other in pairs if one - other and other - one), None)
