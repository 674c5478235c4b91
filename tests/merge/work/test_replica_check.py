"""Ranks with the same coordinates and different parameters; parameters that no wrapper keeps equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render
from distprof.records import Parameter, Parameters, Record

#: Given a rank and its parameters, returns the parameters that its shard holds instead.
Change = Callable[[int, Sequence[Parameter]], Sequence[Parameter]]
NO_TOTALS = {
    *("params_of_model", "params_exact", "trainable_params_exact"),
    *("fwd_flops_of_model", "samples_per_iteration", "samples_per_second"),
}


def report(change: Change, **job: Any) -> Report:
    made = Job(**job)

    def changed(rank: int) -> Iterator[Record]:
        for record in rank_records(made, rank):
            if isinstance(record, Parameters):
                yield replace(record, parameters=tuple(change(rank, record.parameters)))
            else:
                yield record

    return analyse(run_of_shards([shard_of(changed(rank)) for rank in range(made.world)]))


def words(found: Report) -> str:
    return " ".join(render(found, TextOptions()).split())


def half(rank: int, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
    """Keeps the first two blocks on the first two of four ranks, and the other two on the others."""
    blocks = ("blocks.0.", "blocks.1.") if rank < 2 else ("blocks.2.", "blocks.3.")
    return [p for p in parameters if p.name.startswith(blocks)]


def test_ranks_with_different_parameters_are_no_replicas() -> None:
    found = report(half, dp=4, layers=4, source="assumed")
    unknown = {name for name in NO_TOTALS if getattr(found.summary, name) is None}
    assert (unknown, found.model.forward, found.model.params_by_kind) == (NO_TOTALS, None, {})
    assert set(found.summary.unavailable) >= NO_TOTALS and found.model.why_no_forward
    assert [row.cohort for row in found.ranks] == [0, 0, 1, 1], "nor are they compared as equals"
    text = words(found)
    assert "blocks.0.mlp.down.weight is on ranks 0-1 only and blocks.2.mlp.down.weight is on ranks 2-3 only" in text
    assert "call distprof.set_topology(pp=2), if tensor parallel" in text
    assert "params of model, exact: n/a" in text


def test_stages_that_are_no_neighbours_need_coordinates() -> None:
    def odd_and_even(rank: int, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
        return half(2 * (rank % 2), parameters)

    assert 'distprof.set_topology(pp=2, coordinates={"pp": ...})' in words(report(odd_and_even, dp=4, layers=4))


def test_pieces_of_other_sizes_are_named() -> None:
    def uneven(rank: int, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
        return [replace(p, global_numel=p.global_numel + (rank == 1 and p.name == "norm.weight")) for p in parameters]

    found = report(uneven, dp=2)
    assert found.summary.params_exact is None
    assert "norm.weight has 64 elements on rank 0 and 65 on rank 1" in words(found)


@pytest.mark.parametrize("job", [{"dp": 2, "pp": 2}, {"dp": 4, "ep": 2, "experts": 4}, {"dp": 2, "tp": 2}])
def test_what_an_axis_tells_apart_may_differ(job: dict[str, int]) -> None:
    found = report(lambda _, parameters: parameters, **job)
    assert found.summary.params_exact is not None and found.summary.samples_per_iteration is not None


def test_a_model_more_on_one_rank_is_no_other_model() -> None:
    """As one that only rank 0 evaluates."""

    def more(rank: int, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
        return parameters

    made = Job(dp=2)
    shards = []
    for rank in range(2):
        records = rank_records(made, rank)
        if rank == 0:
            parameters = next(record for record in records if isinstance(record, Parameters))
            own = tuple(replace(p, root=1, name=f"inception.{p.name}") for p in parameters.parameters)
            records.insert(-1, Parameters(1, own))
        shards.append(shard_of(records))
    alone = report(more, dp=2).summary.params_exact
    assert alone is not None and analyse(run_of_shards(shards)).summary.params_exact == 2 * alone


# ---- outside of wrappers ---------------------------------------------------------------------------------------------


def wrapped_but(*outside: str, trainable: bool = True) -> Change:
    """Keeps all parameters in a wrapper but those whose names begin with one of ``outside``."""

    def change(_: int, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
        return [
            replace(p, trainable=trainable, kept_alike=False) if p.name.startswith(outside) else p for p in parameters
        ]

    return change


def test_trained_parameters_outside_of_ddp_may_differ() -> None:
    whole = report(wrapped_but("nothing"), dp=4, source="torch").summary.params_exact
    assert whole is not None
    found = report(wrapped_but("embed", "head"), dp=4, source="torch")
    assert found.summary.params_exact is None and found.summary.samples_per_second is not None
    embedding = 1000 * 64
    text = words(found)
    assert (
        f"the model has {whole:,} parameters if all ranks hold the same copy (then call distprof.set_topology(dp=4))"
        in text
    )
    assert f"{whole + 3 * embedding:,} if each rank holds its own" in text


def test_no_model_work_where_such_parameters_work() -> None:
    assert report(wrapped_but("embed", "head"), dp=2, source="torch").model.forward is not None, "an Embedding has none"
    assert report(wrapped_but("blocks.0.attn"), dp=2, source="torch").model.forward is None


def test_frozen_parameters_outside_of_ddp_are_assumed_copies() -> None:
    found = report(wrapped_but("blocks.0", trainable=False), dp=2, source="torch")
    whole = report(wrapped_but("nothing"), dp=2, source="torch")
    assert found.summary.params_exact == whole.summary.params_exact
    assert "params of model, exact if ranks are replicas, as assumed:" in words(found)
    assert "params of model, exact:" in words(whole)


@pytest.mark.parametrize("source", ["declared", "deepspeed", "megatron"])
def test_declared_axes_make_all_parameters_replicas(source: str) -> None:
    assert report(wrapped_but("embed"), dp=2, source=source).summary.params_exact is not None
