"""Tests of the report where no name shows how a job is parallel, or what its modules are called.

Each is run plainly as well, and prints the same losses.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scripts import NewWorkplace

from distprof.merge.report import ONE_OF, ModuleStats, Report

CASES = Path(__file__).parents[1] / "cases"


#: torch's own end of a process may fail so, plain as well as recorded: such a job is run again.
TORCH_ABORTED = "terminate called without an active exception"


def job(new_workplace: NewWorkplace, case: str, ranks: int, *arguments: str) -> Report:
    script = CASES / f"{case}.py", *arguments
    for _ in range(4):
        place = new_workplace().forking()
        if ranks == 1:
            plain, ended = place.start("python", *script).wait(), place.exec("python", *script)
        else:
            plain = place.start_torchrun("--nproc-per-node", ranks, *script).wait()
            ended = place.run("--nproc", ranks, *script)
        if TORCH_ABORTED not in plain.err + ended.err:
            break
    assert (plain.code, ended.code) == (0, 0), f"{plain.err}\n{ended.err}"
    assert losses(ended.out) == losses(plain.out) != []
    return place.report()


def losses(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("loss")]


def labels(report: Report) -> list[str]:
    return [module.label for module in report.modules]


def named(report: Report, label: str) -> ModuleStats:
    return next(module for module in report.modules if module.label == label)


# ---- what the ranks are to each other --------------------------------------------------------------------------------


def test_tensor_parallel_over_a_mesh_without_names(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "unnamed_mesh_tp", 4)
    assert (report.topology.sizes["tp"], report.topology.sizes["dp"]) == (4, 1)
    assert report.topology.sources["tp"] == "parameters"
    assert report.model.forward is not None and report.model.forward.macs == 20 * (16 * 64 + 64 * 16)
    assert report.summary.params_exact == 16 * 64 + 64 + 64 * 16 + 16
    assert report.summary.samples_per_iteration == 20


def test_a_pipeline_by_hand_is_no_data_parallel_job(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "hand_pipeline", 2)
    summary = report.summary
    assert (summary.params_exact, summary.params_of_model, summary.samples_per_second) == (None, None, None)
    assert report.model.forward is None
    (note,) = [note for note in report.run.notes if "hold different parameters" in note]
    assert "layers.0.weight is on rank 0 only and layers.2.weight is on rank 1 only" in note
    assert "distprof.set_topology(pp=2)" in note
    assert [row.cohort for row in report.ranks] == [0, 1]


def test_what_the_note_says_to_type_settles_it(new_workplace: NewWorkplace) -> None:
    place = new_workplace().forking()
    script = (CASES / "hand_pipeline.py").read_text(encoding="utf-8")
    first = "from __future__ import annotations\n"
    place.write("told.py", script.replace(first, f"{first}import distprof\ndistprof.set_topology(pp=2)\n"), prelude="")
    assert place.run("--nproc", 2, "told.py").code == 0
    report = place.report()
    assert report.model.forward is not None and report.model.forward.macs == 8 * 5 * 32 * 32
    assert report.summary.params_exact == 5 * (32 * 32 + 32)
    assert report.summary.samples_per_iteration == 8


def test_tables_outside_of_ddp_are_not_taken_for_copies(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "tables_over_ranks", 2)
    tables, dense = 2 * 100 * 16, 64 + 1
    assert (report.summary.params_exact, report.summary.params_of_model) == (None, None)
    (note,) = [note for note in report.run.notes if note.startswith("tables.0.weight, tables.1.weight are trained")]
    assert f"{tables + dense:,} parameters if all ranks hold the same copy" in note
    assert f"{2 * tables + dense:,} if each rank holds its own" in note
    assert report.summary.samples_per_iteration == 2 * 8, "DDP does tell that the ranks have batches of their own"


def test_a_rank_of_groups_of_unknown_purpose_may_wait_in_them(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "slow_outside", 6, "plain")
    (note,) = [note for note in report.run.notes if "purpose is not known" in note]
    assert "3 of 2 ranks (0-1; 2-3; 4-5), 2 of 3 ranks (0, 2, 4; 1, 3, 5);" in note
    assert "distprof.set_topology(tp=2)" in note
    found = report.verdict.ranks
    named = {one.rank for one in found.named}
    if found.why_self_times:
        assert found.finding == ONE_OF and {2, 3} <= named <= {0, 2, 3, 4}, "rank 3 is slow, and rank 2 waits"
    else:
        assert named == {3}


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_loss_made_anew_in_every_forward_is_one_module(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "fresh_loss", 1)
    assert labels(report) == ["Model", "head", "<CrossEntropyLoss>"]
    loss = named(report, "<CrossEntropyLoss>")
    assert (loss.calls, loss.forward_ns is not None) == (8, True)


def test_a_checkpoint_wrapper_is_no_name_under_fsdp_2(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "fsdp2_checkpoint", 2)
    parts = ("attention_of_this_block", "feed_forward_of_this_block")
    assert [label for label in labels(report) if "(" not in label] == [
        "Sequential",
        *(name for number in range(3) for name in (f"{number}", *(f"{number}.{part}" for part in parts))),
    ]


@pytest.mark.stack("lightning")
def test_fabric_holds_the_model_twice_and_the_report_has_it_once(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "fabric_names", 2)
    wrappers = ["_FabricModule", "DistributedDataParallel"]
    assert [module.class_name for module in report.modules] == [*wrappers, "Sequential", "Linear", "ReLU", "Linear"]
    assert [module.name for module in report.modules] == ["", "", "", "0", "1", "2"]


def test_parts_with_called_methods_keep_names(new_workplace: NewWorkplace) -> None:
    report = job(new_workplace, "methods_of_a_model", 1)
    models = [module for module in report.modules if module.parent < 0]
    assert [module.label for module in models] == ["Agent.network", "Agent.actor", "Agent.critic"]
    assert [module.macs for module in models] == [16 * 8 * 32, 16 * 32 * 4, 16 * 32]
