"""Models that a job only evaluates: apart from the trained ones, whichever ranks met them, and in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render
from distprof.records import FORWARD, Counts, ModuleRow, Parameter, Parameters, Record, Step, Tree

BULK = ("calls", "forward_macs", "forward_flops", "backward_macs", "backward_flops", "recompute_macs")
BULK_OF_STEP = ("calls", "forward_ns", "backward_ns")


def job(**layout: Any) -> list[list[Record]]:
    made = Job(experts=0, steps=2, **layout)
    return [rank_records(made, rank) for rank in range(made.world)]


def report(ranks: Sequence[Sequence[Record]]) -> Report:
    return analyse(run_of_shards([shard_of([*records]) for records in ranks]))


def model(root: int, row: int, kind: str, numel: int, **said: Any) -> list[Record]:
    """A model of one weight, whose rows are behind those of the others."""
    weight = Parameter("weight", row, root, numel, numel, numel, "float32", 4)
    return [
        Tree(row, (ModuleRow("", kind, root, -1, 0, own_params=numel, total_params=numel),)),
        Parameters(root, (weight,), **{"evaluated": True, **said}),
    ]


def rows_of(records: Sequence[Record]) -> int:
    return sum(len(record.rows) for record in records if isinstance(record, Tree))


def beside(records: list[Record], root: int, kind: str, numel: int, **said: Any) -> list[Record]:
    """``records`` of a rank that met one more model, as number ``root``, behind the others."""
    return [*records[:-1], *model(root, rows_of(records), kind, numel, **said), records[-1]]


def before(records: list[Record], kind: str, numel: int, **said: Any) -> list[Record]:
    """``records`` of a rank that met one more model, before the others."""
    first = next(number for number, record in enumerate(records) if isinstance(record, Tree))
    return [*records[:first], *model(0, 0, kind, numel, **said), *map(moved, records[first:])]


def moved(record: Record) -> Record:
    """A record as it is with one more model of one row in front."""
    if isinstance(record, Tree):
        rows = (
            replace(row, root=row.root + 1, parent=row.parent + 1 if row.parent >= 0 else -1) for row in record.rows
        )
        return replace(record, first_row=record.first_row + 1, rows=tuple(rows))
    if isinstance(record, Parameters):
        own = (replace(p, root=p.root + 1, row=p.row + 1) for p in record.parameters)
        return replace(record, root=record.root + 1, parameters=tuple(own))
    if isinstance(record, (Counts, Step)):
        names = BULK if isinstance(record, Counts) else BULK_OF_STEP
        arrays = {name: getattr(record, name) for name in names}
        in_front: dict[str, Any] = {name: np.append(np.zeros(1, a.dtype), a) for name, a in arrays.items() if len(a)}
        return replace(record, **in_front)
    return record


def params(found: Report) -> tuple[Any, ...]:
    """All that is said of parameters."""
    summary, whole = found.summary, found.model
    return (
        summary.params_per_rank,
        summary.params_of_model,
        summary.params_exact,
        summary.trainable_params_exact,
        summary.exact_covers_all,
        whole.params_by_kind,
        whole.active_params,
        [row.params for row in found.ranks],
    )


def evaluated(found: Report) -> list[tuple[str, int]]:
    return [(model.name, model.params) for model in found.model.evaluated]


def labels(found: Report) -> list[tuple[str, str, int]]:
    """What the modules are, but for evaluated models'."""
    apart = {model.root for model in found.model.evaluated}
    return [(row.name, row.class_name, row.ranks) for row in found.modules if row.root not in apart]


@pytest.mark.parametrize("layout", [{"dp": 1}, {"dp": 2}, {"dp": 2, "tp": 2}])
def test_an_encoder_of_every_rank_is_in_no_sum_of_the_trained_model(layout: dict[str, int]) -> None:
    plain = report(job(**layout))
    for met in (
        [beside(records, 1, "AutoencoderKL", 500) for records in job(**layout)],
        [before(records, "AutoencoderKL", 500) for records in job(**layout)],
    ):
        found = report(met)
        assert params(found) == params(plain)
        assert evaluated(found) == [("AutoencoderKL", 500)]
        assert labels(found) == labels(plain)


def test_a_pipeline_may_have_an_encoder_on_its_first_stage_alone() -> None:
    plain, ranks = report(job(dp=1, pp=2)), job(dp=1, pp=2)
    found = report([before(ranks[0], "Encoder", 500), ranks[1]])
    assert params(found) == params(plain)
    assert evaluated(found) == [("Encoder", 500)]
    assert labels(found) == labels(plain)


def test_the_text_lists_it_in_a_line_of_its_own_and_a_note() -> None:
    found = report([beside(records, 1, "AutoencoderKL", 83_650_000) for records in job(dp=2)])
    text = render(found, TextOptions())
    (line,) = (line for line in text.splitlines() if line.startswith("params evaluated only"))
    assert line.split(":")[0] == "params evaluated only (AutoencoderKL)" and line.endswith("83.65 M")
    (note,) = (note for note in found.run.notes if "AutoencoderKL" in note)
    assert note.startswith("AutoencoderKL is only evaluated: the job calls it without gradient")
    (tree,) = (line for line in text.splitlines() if line.startswith("AutoencoderKL("))
    assert tree == "AutoencoderKL(83.65 M Params, evaluated only)"
    assert "= 100% Params" in text, "shares are of the trained model"


@pytest.mark.parametrize("first", [False, True])
def test_a_copy_that_one_rank_alone_evaluates_does_not_make_it_another_job(*, first: bool) -> None:
    """On that rank the trained model may be the second one that was met."""
    plain, ranks = report(job(dp=2)), job(dp=2)
    ranks[0] = before(ranks[0], "GPT", 700) if first else beside(ranks[0], 1, "GPT", 700)
    found = report(ranks)
    assert params(found) == params(plain)
    assert evaluated(found) == [("GPT", 700)]
    assert labels(found) == labels(plain)
    assert found.summary.fwd_flops_of_model == plain.summary.fwd_flops_of_model


def test_ranks_that_evaluate_different_models_are_replicas_still() -> None:
    plain, ranks = report(job(dp=2)), job(dp=2)
    ranks = [beside(ranks[0], 1, "Encoder", 300), before(ranks[1], "Teacher", 400)]
    found = report(ranks)
    assert params(found) == params(plain)
    assert sorted(evaluated(found)) == [("Encoder", 300), ("Teacher", 400)]


def test_a_model_that_is_called_with_gradient_after_all_is_trained() -> None:
    """A discriminator that was first asked without gradient."""
    plain = report(job(dp=1))
    (records,) = job(dp=1)
    rows = rows_of(records)

    def called(record: Record) -> Record:
        if not isinstance(record, Step) or record.iteration % 2:
            return record
        return replace(record, calls=np.append(record.calls, np.ones(1, record.calls.dtype)))

    found = report([[*map(called, beside(records, 1, "Discriminator", 500))]])
    assert rows == len(plain.modules)
    assert evaluated(found) == []
    assert found.summary.params_exact == (plain.summary.params_exact or 0) + 500


def test_a_model_of_which_nobody_says_that_it_was_met_without_gradient_is_trained() -> None:
    (records,) = job(dp=1)
    found = report([beside(records, 1, "Net", 500, evaluated=False)])
    assert evaluated(found) == [] and found.summary.params_exact == (report(job(dp=1)).summary.params_exact or 0) + 500


def test_the_last_word_on_a_model_holds() -> None:
    """An optimizer was seen that steps it."""
    (records,) = job(dp=1)
    rows = rows_of(records)
    records = beside(records, 1, "Net", 500)
    found = report([[*records[:-1], *model(1, rows, "Net", 500, evaluated=False)[1:], records[-1]]])
    assert evaluated(found) == []


def test_a_job_that_only_evaluates_keeps_its_models() -> None:
    records = job(dp=1, mode=FORWARD)[0]
    met = [replace(record, evaluated=True) if isinstance(record, Parameters) else record for record in records]
    found = report([met])
    assert evaluated(found) == []
    assert params(found) == params(report(job(dp=1, mode=FORWARD)))


def test_where_no_call_of_a_trained_model_is_known_all_models_stay() -> None:
    """A compiled function may train one: its calls are nowhere."""

    def unseen(record: Record) -> Record:
        if isinstance(record, Parameters):
            return replace(record, evaluated=True)
        names = {Counts: BULK, Step: BULK_OF_STEP}.get(type(record), ())
        arrays = {name: getattr(record, name) for name in names}
        return replace(record, **{name: np.zeros_like(a) for name, a in arrays.items()})

    (records,) = job(dp=1)
    found = report([[unseen(record) for record in records]])
    assert evaluated(found) == [] and found.summary.params_exact == report(job(dp=1)).summary.params_exact


def test_a_rank_that_trained_nothing_yet_follows_the_others() -> None:
    plain = report(job(dp=2))
    ranks = [beside(records, 1, "Encoder", 500) for records in job(dp=2)]
    ranks[1] = [record for record in ranks[1] if not isinstance(record, (Counts, Step))]
    found = report(ranks)
    assert evaluated(found) == [("Encoder", 500)]
    assert found.summary.params_exact == plain.summary.params_exact
    assert found.summary.params_per_rank == plain.summary.params_per_rank


def test_the_model_inside_of_its_wrapper_that_was_evaluated_first_is_the_trained_one() -> None:
    """All its parameters are the wrapper's, too, and count there; what it shares with none is its own."""
    plain = report(job(dp=1))
    (records,) = job(dp=1)
    inner = [Parameter("embed.weight", 0, 0, 64_000, 64_000, 64_000, "float32", 4)]

    def tied(record: Record) -> Record:
        """The trained model's embedding was met first in the other one."""
        if not isinstance(record, Parameters) or record.root == 0:
            return record
        own = (replace(p, tied_to=p.tied_to or "embed.weight" * (p.name == "embed.weight")) for p in record.parameters)
        return replace(record, parameters=tuple(own), tied_roots=(0, 1))

    def first(more: list[Parameter]) -> list[Record]:
        met = [tied(record) for record in before(records, "GPT", 64_000)]
        return [
            replace(one, parameters=(*inner, *more)) if isinstance(one, Parameters) and one.root == 0 else one
            for one in met
        ]

    found = report([first([])])
    assert evaluated(found) == [] and params(found) == params(plain)
    found = report([first([Parameter("own.weight", 0, 0, 9, 9, 9, "float32", 4)])])
    assert evaluated(found) == [("GPT", 9)] and params(found) == params(plain)
