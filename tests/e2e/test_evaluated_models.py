"""A job that trains one model and only evaluates others: an encoder on every rank, and a tested copy on the first."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scripts import NewWorkplace

CASE = Path(__file__).parents[1] / "cases" / "evaluated_model.py"
ENCODER = 8 * 16 + 16 + 16 * 4 + 4
TRAINED = 2 * (4 * 4 + 4)
FROZEN = 10 * 4  # inside the trained model, and a part of it


@pytest.mark.parametrize("ranks", [1, 2])
def test_models_that_are_only_evaluated_are_in_no_sum(new_workplace: NewWorkplace, ranks: int) -> None:
    workplace = new_workplace()
    words = ("--nproc-per-node", ranks, CASE)
    plain, ended = workplace.start_torchrun(*words).wait(), workplace.run("--nproc", ranks, CASE)
    assert (plain.code, ended.code) == (0, 0), ended.err
    assert sorted(ended.out.splitlines()) == sorted(plain.out.splitlines())
    report = workplace.report()
    summary, model = report.summary, report.model
    assert summary.params_exact == summary.params_of_model == TRAINED + FROZEN
    assert summary.trainable_params_exact == TRAINED
    assert summary.exact_covers_all
    assert model.params_by_kind == {"dense": TRAINED, "embedding": FROZEN}
    assert model.active_params == TRAINED + FROZEN
    assert [row.params for row in report.ranks] == [TRAINED + FROZEN] * ranks
    assert sorted((one.name, one.params) for one in model.evaluated) == [
        ("Denoiser", TRAINED + FROZEN),
        ("Encoder", ENCODER),
    ]
    tested = {module.ranks for module in report.modules if module.root == model.evaluated[0].root}
    assert tested == {1}, "the copy runs on the first rank only"
    trained = {module.root for module in report.modules} - {one.root for one in model.evaluated}
    assert len(trained) == 1, "the trained model is one, in whatever order the ranks met their models"
