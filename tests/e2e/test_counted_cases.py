"""Tests of work that is easily counted wrong: sparse tensors, modules inside compiled code, evaluated models."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scripts import NewWorkplace

from distprof.merge.report import Report

CASES = Path(__file__).parents[1] / "cases"


def recorded(new_workplace: NewWorkplace, case: str, *arguments: str) -> tuple[Report, str]:
    """Returns the report; checks that the script prints the same without distprof."""
    workplace = new_workplace().forking()
    words = ("python", CASES / f"{case}.py", *arguments)
    plain, ended = workplace.start(*words).wait(), workplace.exec(*words)
    assert (plain.code, ended.code, ended.out) == (0, 0, plain.out)
    return workplace.report(), plain.out


def test_a_graph_convolution_works_with_the_edges(new_workplace: NewWorkplace) -> None:
    report, said = recorded(new_workplace, "gcn_train")
    nodes, features, hidden, classes = 2000, 32, 16, 4
    stored = int(said.split()[2])
    assert 7000 < stored <= 8000
    first, second = nodes * features * hidden, nodes * hidden * classes
    both_products = stored * hidden + stored * classes
    assert report.summary.fwd_macs_per_rank == first + second + both_products
    assert report.summary.bwd_macs_per_rank == first + 2 * second + both_products, "the input needs no gradient"
    assert report.summary.uncounted_ops == {}


def test_a_sparse_gradient_updates_the_rows_that_were_looked_up(new_workplace: NewWorkplace) -> None:
    report, _ = recorded(new_workplace, "sparse_gradient")
    lookups, width, rows = 32 * 5, 16, 1000
    (optimizer,) = [row for row in report.work if row.where == "(optimizer)"]
    assert optimizer.flops == 2 * lookups * width, "the rate, and the difference"
    assert report.summary.bwd_flops_per_rank == 4 * 32 * width, "the loss's: rows of a gradient are not added up"
    (rank,) = report.ranks
    assert rank.parameter_bytes == rows * width * 4
    assert rank.gradient_bytes == lookups * (width * 4 + 8), "values, and an index each"
    assert rank.optimizer_bytes == 0


def test_modules_inside_compiled_code_are_not_said_to_do_nothing(new_workplace: NewWorkplace) -> None:
    report, _ = recorded(new_workplace, "compiled_rows", "aot_eager")
    first, *inside = report.modules
    assert first.macs == report.summary.fwd_macs_per_rank == 2 * 16 * 64 * 64
    assert {module.macs for module in inside} == {None}
    assert any("--count-eager" in note for note in report.run.notes)


@pytest.mark.parametrize("ranks", [1, 2])
def test_models_that_are_only_evaluated_are_in_no_sum(new_workplace: NewWorkplace, ranks: int) -> None:
    encoder = 8 * 16 + 16 + 16 * 4 + 4
    trainable, frozen = 2 * (4 * 4 + 4), 10 * 4
    trained = trainable + frozen  # what is frozen inside of the trained model is a part of it
    workplace, case = new_workplace().forking(), CASES / "evaluated_model.py"
    plain = workplace.start_torchrun("--nproc-per-node", ranks, case).wait()
    ended = workplace.run("--nproc", ranks, case)
    assert (plain.code, ended.code) == (0, 0), plain.err + ended.err
    assert sorted(ended.out.splitlines()) == sorted(plain.out.splitlines())
    report = workplace.report()
    summary, model = report.summary, report.model
    assert summary.params_exact == summary.params_of_model == trained
    assert summary.trainable_params_exact == trainable
    assert summary.exact_covers_all
    assert model.params_by_kind == {"dense": trainable, "embedding": frozen}
    assert model.active_params == trained
    assert [row.params for row in report.ranks] == [trained] * ranks
    assert sorted((one.name, one.params) for one in model.evaluated) == [
        ("Denoiser", trained),
        ("Encoder", encoder),
    ]
    tested = {module.ranks for module in report.modules if module.root == model.evaluated[0].root}
    assert tested == {1}, "the copy runs on the first rank only"
    others = {module.root for module in report.modules} - {one.root for one in model.evaluated}
    assert len(others) == 1, "the trained model is one, in whatever order the ranks met their models"
