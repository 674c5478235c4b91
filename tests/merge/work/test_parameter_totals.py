"""Numbers of parameters in every layout, compared with results computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic import VOCABULARY, WIDTH, Job, in_memory, rank_records, shard_of

from distprof.merge.analysis import start_analysis
from distprof.merge.job.topology import job_topology
from distprof.merge.load.run import run_of_shards
from distprof.merge.work.parameter_totals import Totals, model_estimate, parameter_totals
from distprof.records import Parameter, Parameters, Record, Topology


def by_hand(layers: int, experts: int) -> int:
    """The parameters of the synthetic GPT, from its shape; the head shares the weight of the embedding."""
    block = 2 * 2 * WIDTH + 3 * WIDTH**2 + WIDTH**2
    dense, moe = 8 * WIDTH**2, experts * WIDTH + experts * 8 * WIDTH**2
    sparse = layers // 2 if experts else 0
    return VOCABULARY * WIDTH + layers * block + (layers - sparse) * dense + sparse * moe + 2 * WIDTH


def totals(records: list[list[Record]]) -> Totals:
    run = run_of_shards([shard_of(one) for one in records])
    return parameter_totals(start_analysis(run))


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
def test_exact_total_in_every_layout(layout: dict[str, Any]) -> None:
    found = of_job(layers=4, experts=4, **layout)
    assert found.exact == found.trainable == by_hand(4, 4)
    assert found.covers_all


def test_stages_add_up() -> None:
    # The head of the last stage cannot share the embedding of the first: it is a parameter of its own.
    assert of_job(layers=4, experts=4, pp=2, dp=2).exact == by_hand(4, 4) + VOCABULARY * WIDTH


layouts = st.fixed_dictionaries(
    {
        "dp": st.sampled_from([1, 2, 4]),
        "tp": st.sampled_from([1, 2]),
        "pp": st.sampled_from([1, 2, 3]),
        "ep": st.sampled_from([1, 2, 4]),
        "layers": st.integers(1, 4),
        "experts": st.sampled_from([4, 8]),
        "tp_experts": st.booleans(),
        "shared_expert": st.booleans(),
        "local_names": st.booleans(),
    }
).filter(lambda job: job["ep"] <= job["dp"] and job["pp"] <= job["layers"])


def whole(job: dict[str, Any]) -> int:
    """The parameters of the model in one process; on several stages, the head is a copy of the embedding."""
    shared = (job["layers"] // 2) * WIDTH**2 if job["shared_expert"] else 0
    return by_hand(job["layers"], job["experts"]) + shared


@settings(max_examples=60, deadline=None)
@given(layouts)
def test_the_layout_does_not_change_the_model(job: dict[str, Any]) -> None:
    found = of_job(**job, tied_stages=True, steps=1)
    assert (found.exact, found.covers_all, found.uncovered, found.notes) == (whole(job), True, (), ())
    assert sum(found.by_kind.values()) == found.exact
    sparse = job["layers"] // 2
    assert found.by_kind.get("expert", 0) == sparse * job["experts"] * 8 * WIDTH**2
    assert found.by_kind.get("shared", 0) == (sparse * WIDTH**2 if job["shared_expert"] else 0)
    assert found.active == found.exact - sparse * (job["experts"] - 2) * 8 * WIDTH**2


@settings(max_examples=60, deadline=None)
@given(layouts, st.data())
def test_totals_with_missing_ranks(job: dict[str, Any], data: st.DataObject) -> None:
    made = Job(**job, tied_stages=True, steps=1)
    ranks = data.draw(st.sets(st.integers(0, made.world - 1), min_size=1))
    found = totals([rank_records(made, rank) for rank in sorted(ranks)])
    assert found.exact is not None and found.exact <= whole(job)
    assert found.covers_all == (len(ranks) == made.world)
    if found.exact < whole(job):
        assert found.uncovered, "parameters are missing, so coordinates are"
    if not found.uncovered:
        assert found.exact == whole(job), "one replica is enough"


def test_missing_coordinates() -> None:
    job = Job(dp=4, ep=4, pp=2, layers=4)
    without = {"a stage": {4, 5, 6, 7}, "an expert rank": {6}, "two": {2, 3}, "all but one": {*range(1, 8)}}
    found = {
        what: totals([rank_records(job, rank) for rank in sorted(set(range(8)) - ranks)]).uncovered
        for what, ranks in without.items()
    }
    assert found == {
        "a stage": ("pp 1",),
        "an expert rank": ("pp 1, ep 2",),
        "two": ("pp 0, ep 2-3",),
        "all but one": ("pp 1", "pp 0, ep 1-3"),
    }


def test_a_missing_replica_leaves_the_total_exact() -> None:
    job = Job(dp=4)
    found = totals([rank_records(job, rank) for rank in (0, 1, 3)])
    assert (found.exact, found.covers_all, found.uncovered) == (by_hand(2, 4), False, ())


def test_conflicting_sizes_are_not_exact() -> None:
    def wider(record: Record) -> Record:
        if not isinstance(record, Parameters):
            return record
        more = tuple(replace(p, global_numel=p.global_numel + 64 * (p.name == "norm.bias")) for p in record.parameters)
        return replace(record, parameters=more)

    job = Job(dp=2)
    found = totals([rank_records(job, 0), [wider(record) for record in rank_records(job, 1)]])
    assert not found.covers_all
    assert found.notes[0].startswith(
        "norm.bias has 64 elements on rank 0 and 128 on rank 1, which have the same coordinates"
    )


def test_several_sizes_of_expert_groups_in_one_model() -> None:
    """Layer 1 uses ep_size_2 and layer 3 uses ep_size_4, as DeepSpeed allows."""
    job = Job(dp=4, ep=4, layers=4, experts=4, steps=1)

    def spread(p: Parameter) -> Parameter:
        axis = "ep_size_2" if p.name.startswith("blocks.1") else "ep_size_4"
        return replace(p, split=(axis,)) if p.kind == "expert" else p

    def change(number: int, record: Record) -> Record:
        if isinstance(record, Topology):
            sizes = record.sizes | {"ep_size_2": 2, "ep_size_4": 4}
            coordinates = record.coordinates | {"ep_size_2": number % 2, "ep_size_4": number}
            return replace(record, sizes=sizes, coordinates=coordinates)
        if isinstance(record, Parameters):
            return replace(record, parameters=tuple(map(spread, record.parameters)))
        return record

    found = totals([[change(rank, record) for record in rank_records(job, rank)] for rank in range(4)])
    # Each rank holds one expert of either layer: of the first layer there are two different ones, of the other four.
    assert found.by_kind["expert"] == (2 + 4) * 8 * WIDTH**2


def test_active_parameters_are_unknown_without_top_k() -> None:
    found = of_job(dp=2, top_k=0)
    assert found.active is None and found.exact == by_hand(2, 4)
    assert of_job(dp=2, experts=0).active == by_hand(2, 0)


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


def test_totals_are_none_without_records() -> None:
    found = totals([[record for record in rank_records(Job(dp=1), 0) if not isinstance(record, Parameters)]])
    assert (found.exact, found.trainable, found.per_rank) == (None, None, {})


def test_parameters_written_twice_count_once() -> None:
    records = rank_records(Job(dp=1), 0)
    again = [record for record in records if isinstance(record, Parameters)]
    assert totals([[*records, *again]]).exact == by_hand(2, 4)


def test_model_estimate_with_a_missing_rank() -> None:
    run = run_of_shards(in_memory(Job(dp=2, pp=2))[1:])  # one of the two ranks of stage 0 is missing
    assert model_estimate({1: 10.0, 2: 30.0, 3: 30.0}, job_topology(run)) == 2 * 20.0
    assert model_estimate({}, job_topology(run)) is None
