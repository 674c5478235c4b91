"""How many parameters: exact unions against counts made by hand, in every layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import VOCABULARY, WIDTH, Job, in_memory, rank_records, shard_of

from distprof.merge.load import run_of_shards
from distprof.merge.topology import layout_of
from distprof.merge.totals import Totals, of_model, totals_of
from distprof.records import Parameters, Record


def by_hand(layers: int, experts: int) -> int:
    """The synthetic GPT's parameters, from its shape: the head shares the embedding's weight."""
    block = 2 * 2 * WIDTH + 3 * WIDTH**2 + WIDTH**2
    dense, moe = 8 * WIDTH**2, experts * WIDTH + experts * 8 * WIDTH**2
    sparse = layers // 2 if experts else 0
    return VOCABULARY * WIDTH + layers * block + (layers - sparse) * dense + sparse * moe + 2 * WIDTH


def totals(records: list[list[Record]]) -> Totals:
    run = run_of_shards([shard_of(one) for one in records])
    return totals_of(run, layout_of(run))


def of_job(**job: Any) -> Totals:
    made = Job(**job)
    return totals([rank_records(made, rank) for rank in range(made.world)])


@pytest.mark.parametrize(
    "layout",
    [
        {"dp": 1},
        {"dp": 4},
        {"dp": 2, "tp": 2},
        {"dp": 4, "ep": 2},
        {"dp": 4, "ep": 4, "tp": 2},
        {"dp": 2, "ep": 2, "tp": 2, "tp_experts": True},
    ],
)
def test_exact_is_the_size_of_the_whole_model_in_every_layout(layout: dict[str, Any]) -> None:
    found = of_job(layers=4, experts=4, **layout)
    assert found.exact == found.trainable == by_hand(4, 4)
    assert found.covers_all


def test_stages_add_up() -> None:
    # The head of the last stage cannot share the embedding of the first: it is a parameter of its own.
    assert of_job(layers=4, experts=4, pp=2, dp=2).exact == by_hand(4, 4) + VOCABULARY * WIDTH


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2]), st.integers(1, 4))
def test_the_layout_does_not_change_the_model(dp: int, tp: int, ep: int, layers: int) -> None:
    assert of_job(dp=dp, tp=tp, ep=min(ep, dp), layers=layers, steps=1).exact == by_hand(layers, 4)


def test_frozen_parameters_are_not_trainable() -> None:
    def frozen(record: Record) -> Record:
        if not isinstance(record, Parameters):
            return record
        return replace(record, parameters=tuple(replace(p, trainable=p.name != "norm.bias") for p in record.parameters))

    found = totals([[frozen(record) for record in rank_records(Job(dp=1), 0)]])
    assert found.exact is not None and found.trainable == found.exact - WIDTH


def test_missing_ranks_leave_a_lower_bound() -> None:
    job = Job(dp=4, ep=4)
    found = totals([rank_records(job, rank) for rank in (0, 1, 2)])
    assert not found.covers_all
    assert found.exact == by_hand(2, 4) - 8 * WIDTH**2  # one expert is on the missing rank only


def test_a_rank_without_parameters_leaves_a_lower_bound() -> None:
    records = [rank_records(Job(dp=2), rank) for rank in range(2)]
    records[1] = [record for record in records[1] if not isinstance(record, Parameters)]
    found = totals(records)
    assert not found.covers_all
    assert found.per_rank.keys() == {0}


def test_nothing_recorded_is_not_zero() -> None:
    found = totals([[record for record in rank_records(Job(dp=1), 0) if not isinstance(record, Parameters)]])
    assert (found.exact, found.trainable, found.per_rank) == (None, None, {})


def test_parameters_written_twice_count_once() -> None:
    records = rank_records(Job(dp=1), 0)
    again = [record for record in records if isinstance(record, Parameters)]
    assert totals([[*records, *again]]).exact == by_hand(2, 4)


def test_of_model_weighs_unequal_stages_evenly_when_a_rank_is_missing() -> None:
    run = run_of_shards(in_memory(Job(dp=2, pp=2))[1:])  # one of the two ranks of stage 0 is missing
    assert of_model({1: 10.0, 2: 30.0, 3: 30.0}, layout_of(run)) == 2 * 20.0
    assert of_model({}, layout_of(run)) is None
