"""Tests of the records: the properties that the file format and its readers need."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest

from distprof.records import (
    AXES,
    INT64,
    PHASES,
    RECORDS,
    SCHEMA_HISTORY,
    SCHEMA_VERSION,
    Bounds,
    Counts,
    ExpertLoad,
    Header,
    Natural,
    Record,
    Row,
    Step,
)


def test_every_kind_of_record_has_a_name_of_its_own() -> None:
    kinds = typing.get_args(Record)
    assert set(RECORDS.values()) == set(kinds)
    assert [RECORDS[kind.KIND] for kind in kinds] == list(kinds)


@pytest.mark.parametrize("record", RECORDS.values())
def test_no_field_is_called_as_the_envelope_is(record: type[Record]) -> None:
    names = {field.name for field in dataclasses.fields(record)}
    assert not names & {"shard", "kind", "sequence"}  # the keys that `distprof dump` adds


@pytest.mark.parametrize("record", RECORDS.values())
def test_only_fields_with_defaults_follow_the_first_version(record: type[Record]) -> None:
    """The required fields never change, so that older readers can read newer minor versions."""
    required = {
        "header": ["run_id", "rank", "world_size"],
        "plan": ["start", "counted", "timed"],  # from 3.0 on
        "topology": ["source", "sizes", "coordinates"],
        "tree": ["first_row", "rows"],
        "parameters": ["root", "parameters"],
        "counts": ["iteration", "mode", "micro_batches", "samples"],
        "step": [
            *("iteration", "mode", "start_wall_ns", "duration_ns", "phases_ns", "micro_batches", "batch_size"),
            *("samples", "peak_memory_bytes", "memory_source"),
        ],
        "warmup_step": ["iteration", "mode", "start_wall_ns", "duration_ns", "phases_ns"],  # from 3.0 on
        "memory": ["iteration", "parameter_bytes", "gradient_bytes", "optimizer_bytes"],  # from 1.1 on
        "memory_unknown": ["iteration", "reason"],  # from 2.1 on
        "window_summary": ["window", "mode", "start", "iterations", "duration_ns"],  # from 3.0 on
        **{kind: ["iteration", "mode"] for kind in ("timeline", "collectives", "pauses")},  # from 3.0 on
        "expert_layers": ["layers"],
        "expert_load": ["iteration"],
        "expert_routing": ["iteration", "layers"],  # from 1.1 on
        "clock_offset": ["reference", "mono_ns", "offset_ns", "bound_ns", "probes"],  # from 3.0 on
        "error": ["where", "message"],
        "end": ["reason", "iterations"],
    }
    missing = dataclasses.MISSING
    found = [f.name for f in dataclasses.fields(record) if f.default is missing and f.default_factory is missing]
    assert found == required.get(record.KIND, [])


def test_the_version_has_its_line_in_the_history() -> None:
    assert max(SCHEMA_HISTORY) == SCHEMA_VERSION
    first = SCHEMA_HISTORY[1, 0].split(", ")
    assert [kind for kind in RECORDS if kind in first] == first
    later = " ".join(line for version, line in SCHEMA_HISTORY.items() if version > (1, 0))
    assert all(kind in later for kind in RECORDS.keys() - set(first))


def test_the_words_of_the_report_are_in_their_order() -> None:
    assert PHASES == ("data", "forward", "outside", "backward", "optimizer", "evaluation", "other")
    assert AXES == ("dp", "tp", "pp", "cp", "ep")


def test_bounds_lie_within_an_int64() -> None:
    assert Natural.__metadata__ == (Bounds(0, INT64.high),)  # type: ignore[attr-defined]
    assert Row.__metadata__[0].low == -1  # type: ignore[attr-defined]
    assert (INT64.low, INT64.high) == (np.iinfo("<i8").min, np.iinfo("<i8").max)


def step(**fields: object) -> Step:
    return Step(3, "training", 5, 7, {"other": 7}, 1, 2, 2, 100, "rss", **fields)  # type: ignore[arg-type]


def test_equality_of_records_with_arrays() -> None:
    times = np.array([1, 2], "<i8")
    assert step(forward_ns=times) == step(forward_ns=times.copy())
    assert step(forward_ns=times) != step(forward_ns=times + 1)
    assert step(forward_ns=times) != step(forward_ns=times[:1])
    assert step(forward_ns=times) != step(backward_ns=times)
    assert step() != dataclasses.replace(step(), iteration=4)
    assert Counts(1, "training", 1, 1) != ExpertLoad(1)
    assert ExpertLoad(1) != "expert_load"


def test_a_header_names_the_schema_that_this_code_writes() -> None:
    assert Header("run", 0, 1).schema == SCHEMA_VERSION
