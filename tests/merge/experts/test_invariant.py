"""Chosen - dropped = processed, in every layer and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.records import ExpertLayers, ExpertLoad, ExpertRouting, LayerRouting, Record, Suspect

ROUTED = [40, 30, 20, 10]


def report(*, tokens: list[int], change: Callable[[Record], Record] = lambda record: record, **routed: Any) -> Report:
    """Returns the report of one rank, whose experts processed ``tokens`` in each step."""
    made = Job(dp=1, noise=0, experts=4, steps=2, layers=2)
    records: list[Record] = []
    for record in map(change, rank_records(made, 0)):
        records.append(record)
        if isinstance(record, ExpertLoad):
            records[-1] = ExpertLoad(record.iteration, np.array(tokens, "<i8"))
            one = LayerRouting(**{"layer": 0, "routed": np.array(ROUTED), **routed})
            records.append(ExpertRouting(record.iteration, (one,)))
    return analyse(run_of_shards([shard_of(records)]))


def notes(seen: Report) -> list[str]:
    return [note for note in seen.run.notes if "routers chose" in note]


def test_it_holds() -> None:
    dropped: dict[str, Any] = {"drops_known": True, "dropped": np.array([10, 0, 0, 5])}
    assert notes(report(tokens=ROUTED)) == []
    assert notes(report(tokens=[30, 30, 20, 5])) == [], "drops are not known"
    assert notes(report(tokens=[30, 30, 20, 5], **dropped)) == []


def test_a_breach_is_noted_with_both_numbers() -> None:
    dropped: dict[str, Any] = {"drops_known": True, "dropped": np.array([10, 0, 0, 5])}
    (note,) = notes(report(tokens=[30, 31, 20, 5], **dropped))
    assert "chose expert 1 30 times and dropped 0, but it processed 31 tokens (100 and 86 over all experts)" in note
    (note,) = notes(report(tokens=[40, 30, 25, 5]))
    assert "chose expert 2 20 times, but it processed 25 tokens" in note


def test_dropped_choices_of_unknown_experts() -> None:
    (layer,) = report(tokens=ROUTED, drops_known=True, lost=7).experts
    assert (layer.dropped, layer.lost, layer.drop_rate) == (14, 14, 14 / 214)


def test_suspects_make_active_parameters_unknown() -> None:
    def suspected(record: Record) -> Record:
        suspects = (Suspect("layers.0", 1, "its class is OddMoE"), Suspect("", 0, "config.k = 2", by_config=True))
        return ExpertLayers(record.layers, suspects) if isinstance(record, ExpertLayers) else record

    seen = report(tokens=ROUTED, change=suspected)
    assert seen.model.active_params is None
    assert seen.model.why_no_active == "experts suspected, not understood: layers.0"
    (note,) = (note for note in seen.run.notes if "suspected" in note)
    assert note.startswith("experts suspected, not understood: layers.0 (its class is OddMoE)")
    assert report(tokens=ROUTED).model.active_params is not None
