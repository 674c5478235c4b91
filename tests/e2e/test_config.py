"""Tests of a DeepSpeed config that sets options of the recording and of the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.jobs import Recorded, RunJob

from distprof.records import Counts, Step

SECTION = {
    "enabled": True,
    "profile_step": 2,
    "module_depth": 1,
    "top_modules": 2,
    "detailed": False,
    "output_file": "profiles/out.txt",
    "recompute_fwd_factor": 1.0,
}
STEPS = 8


@pytest.fixture(scope="module")
def job(record_job: RunJob, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    config = tmp_path_factory.mktemp("config") / "ds_config.json"
    config.write_text(json.dumps({"train_batch_size": 16, "flops_profiler": SECTION}))
    ours = ["--config", str(config), "--timed", "2"]
    done = record_job("train_ddp.py", "--steps", str(STEPS), nproc=2, ours=ours, DISTPROF_PLOTS="0")
    assert done.code == 0, done.stderr
    return done


def test_the_window_begins_at_profile_step(job: Recorded) -> None:
    for rank, shard in enumerate(job.shards):
        (counted,) = {record.iteration for record in shard.records if isinstance(record, Counts)}
        assert counted == SECTION["profile_step"]
        assert [record.iteration for record in shard.records if isinstance(record, Step)] == [3, 4, 5]
        assert [step.iteration for step in job.steps(rank)] == [4, 5], "the first is not used"


def test_the_report_is_written_where_and_as_the_section_says(job: Recorded) -> None:
    text = (job.run.parent.parent / "profiles" / "out.txt").read_text()
    assert "\nTop 2 modules" in text and "\ndepth 1:\n" in text and "\ndepth 2:\n" not in text
    assert "Detailed Profile" not in text
    assert "Profile Summary" not in "\n".join(job.job.lines), "stdout is the script's alone"
    assert "distprof: text of the report in profiles/out.txt\n" in job.stderr
    assert job.stderr.count("recompute_fwd_factor") == 1


def test_a_later_merge_shows_the_same(job: Recorded) -> None:
    before = (job.run / "report" / "summary.txt").read_text()
    merged = job.cli("merge", str(job.run), "--no-plots", "--full")
    assert merged.stdout == before == (job.run.parent.parent / "profiles" / "out.txt").read_text()
    assert (
        "Detailed Profile"
        in job.cli("merge", str(job.run), "--no-plots", "--detailed", "--full", "--out", "other").stdout
    )


def test_a_section_that_is_not_enabled_leaves_the_job_alone(record_job: RunJob, tmp_path: Path) -> None:
    config = tmp_path / "ds_config.json"
    config.write_text(json.dumps({"flops_profiler": {"enabled": False, "profile_step": 5}}))
    script = tmp_path / "train.py"
    script.write_text("print('trained')")
    done = record_job(script, nproc=1, ours=["--config", str(config)])
    assert (done.code, done.job.lines) == (0, ["trained"])
    assert done.stderr == f"distprof: the job is not recorded: 'flops_profiler.enabled' in {config} says no\n"
    assert not done.run.exists()
