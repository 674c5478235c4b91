"""Tests of the last line: how many ranks were recorded, and why not all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distprof.launcher.job_summary import last_line, read_rank_summaries
from distprof.launcher.run_setup import Job
from distprof.merge.load.run import load_run
from distprof.rank_names import rank_names
from distprof.records import ALONE, FORWARD, TRAINING, Counts, End, Error, Header, Plan, Record, Step
from distprof.run_folder import RunFolder, create
from distprof.shard.writer import FileSink, ShardWriter

WORLD = 4
PLAN = Plan(start=1, counted=1, timed=2)
JOB = Job(("train.py",), "train", world_size=WORLD)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    return create(Path("runs"), "x", shared=False)


def step(iteration: int) -> Step:
    return Step(iteration, FORWARD, 1, 2, {"other": 2}, 1, 1, 1, 1, "rss")


def write(run: RunFolder, rank: int, *records: Record, generation: int = 0, **others: Any) -> None:
    writer = ShardWriter(FileSink(run.shard_path(rank, generation)))
    header = Header(
        "id", rank, **{"world_size": WORLD, "local_world_size": 2, "generation": generation, "host": "here", **others}
    )
    for record in (header, PLAN, *records):
        writer.write(record)
    writer.close()


FULL = (Counts(1, FORWARD, 1, 1), step(2), step(3), End("window complete", 4))


def line(run: RunFolder, job: Job = JOB, *, merging: bool = False) -> str:
    return last_line(run, job, *read_rank_summaries(run, job.host), merging=merging)


def test_all_ranks_recorded_is_said_with_the_next_step(run: RunFolder) -> None:
    for rank in range(WORLD):
        write(run, rank, *FULL)
    assert line(run) == "4 of 4 ranks recorded in runs/x  ->  distprof merge runs/x"
    assert line(run, merging=True) == "4 of 4 ranks recorded in runs/x"


def test_every_reason_names_its_ranks(run: RunFolder) -> None:
    write(run, 0, Error("timing", "it broke\nsecond line"))
    write(run, 1, *FULL[:2], End("exit", 3))
    write(run, 2, End("no module was called", 0))
    text = line(run)
    assert text.startswith("1 of 4 ranks recorded in runs/x; rank 0 stopped recording in timing: it broke; ")
    assert "; rank 1 ended after 1 of 2 timed steps; rank 2 called no module; rank 3 left no shard: killed" in text
    assert "second line" not in text


def test_advice_for_compiled_functions_only(run: RunFolder) -> None:
    write(run, 0, End("no module was called, compiled functions ran", 0))
    text = line(run, Job((), "t", world_size=1))
    assert text.startswith("0 of 1 ranks recorded in runs/x; rank 0 called no module, only compiled functions: ")
    assert "call the model, or compile it instead of the function" in text


def test_rank_killed_in_its_window(run: RunFolder) -> None:
    for rank in range(WORLD):
        write(run, rank, *FULL[:2])
    assert line(run).startswith("4 of 4 ranks recorded in runs/x; ranks 0-3 ended after 1 of 2 timed steps  ->  ")


@pytest.mark.parametrize(("steps", "remark"), [(2, "; ranks 0-3 ended after 1 of 2 timed steps"), (3, "")])
def test_settling_step_is_not_counted_as_timed(run: RunFolder, steps: int, remark: str) -> None:
    for rank in range(WORLD):
        write(run, rank, Plan(1, 1, 2, settling=1), FULL[0], *map(step, range(2, 2 + steps)), FULL[-1])
    assert line(run).startswith(f"4 of 4 ranks recorded in runs/x{remark}  ->  ")


def test_a_run_with_a_settling_step_alone_holds_nothing(run: RunFolder) -> None:
    write(run, 0, Plan(1, 1, 2, settling=1), step(2), End("exit", 3))
    assert line(run, Job((), "t", world_size=1)).startswith(
        "0 of 1 ranks recorded in runs/x; rank 0 ended after 0 of 2"
    )


def test_a_script_that_is_too_short_is_told_its_options(run: RunFolder) -> None:
    """The same words stand in the report; nothing was recorded, so there is nothing to merge."""
    write(run, 0, Plan(start=5, counted=1, timed=10), End("exit", 3))
    said = line(run, Job((), "t", world_size=1))
    assert said == (
        "0 of 1 ranks recorded in runs/x; rank 0 ended after 0 of 10 timed steps (3 iterations seen, 16 needed: "
        "add --warmup 1 --timed 1)"
    )
    (data,) = load_run(run.path).ranks
    assert data.why_incomplete(TRAINING, 0).endswith(
        "the script ended; 3 iterations seen, 16 needed: add --warmup 1 --timed 1"
    )


def test_the_newest_generation_of_a_rank_holds(run: RunFolder) -> None:
    for generation in (10, 9):  # 10 sorts before 9 as a name
        write(run, 0, *(FULL if generation == 10 else ()), generation=generation)
    assert line(run, Job((), "t", world_size=1)).startswith("1 of 1 ranks recorded in runs/x  ->")


def test_world_size_comes_from_the_ranks(run: RunFolder) -> None:
    write(run, 0, *FULL)
    assert line(run, Job((), "train")).startswith("1 of 4 ranks recorded in runs/x; ranks 1-3 left no shard")


def test_ranks_that_an_elastic_job_has_no_more_are_passed_over(run: RunFolder) -> None:
    """A node with two ranks left; the other node restarts with its own two."""
    for rank in (2, 3):
        write(run, rank, *FULL[:2], wall_ns=1)
    for rank in (0, 1):
        write(run, rank, *FULL, world_size=2, wall_ns=2)
    assert line(run, Job((), "train")) == "2 of 2 ranks recorded in runs/x  ->  distprof merge runs/x"


def test_of_several_nodes_each_answers_for_its_own_ranks(run: RunFolder) -> None:
    write(run, 0, *FULL, host="there")
    write(run, 2, *FULL)
    job = Job((), "train", "shared", WORLD, host="here", host_ranks=2)
    assert line(run, job).startswith("1 of 2 ranks of this node recorded in runs/x; 1 left no shard: killed")


def test_shards_of_an_earlier_job_are_ignored(run: RunFolder) -> None:
    """Its rank 0 ran on this node too; the ranks of this job are known by their launch id, or by its start time."""
    write(run, 0, *FULL, launch="before", launched_ns=1, wall_ns=2)
    write(run, 1, *FULL, launch="before", launched_ns=1, wall_ns=2)
    write(run, 0, *FULL, launch="now", launched_ns=9, wall_ns=10, generation=1)
    node = Job((), "train", "shared", WORLD, host="here", host_ranks=2)
    assert line(RunFolder(run.path, "now"), node).startswith("1 of 2 ranks of this node recorded in runs/x; 1 left no")
    assert line(run, Job((), "t", world_size=2)).startswith("1 of 2 ranks recorded in runs/x; rank 1 left no shard")


def test_processes_without_rank_are_counted(run: RunFolder) -> None:
    for pid in (7, 8):
        write(run, 0, *FULL, generation=pid, pid=pid, claim=ALONE)
    job = Job((), "t", world_size=1)
    several = "2 processes ran models and none was told its RANK: merging reports the last that began"
    assert line(run, job).startswith(f"1 of 1 ranks recorded in runs/x; {several}  ->")
    write(run, 0, *FULL, generation=9, pid=9)
    assert line(run, job).startswith("1 of 1 ranks recorded in runs/x  ->")


def test_nothing_to_merge_means_no_next_step(run: RunFolder) -> None:
    assert line(run).startswith("0 of 4 ranks recorded in runs/x; ranks 0-3 left no shard")
    assert line(run, Job((), "train")).startswith("no rank was recorded in runs/x; every process left no shard")
    assert "->" not in line(run)


def test_a_file_that_is_no_shard_is_named(run: RunFolder) -> None:
    run.shard_path(0, 0).write_bytes(b"not a shard")
    assert "rank00000.g0.msgpack is no distprof shard" in line(run)


@pytest.mark.parametrize(
    ("ranks", "text"), [([3], "rank 3"), ([1, 0, 2], "ranks 0-2"), ([7, 0, 1, 4], "ranks 0-1, 4, 7")]
)
def test_ranks_are_named_in_spans(ranks: list[int], text: str) -> None:
    assert rank_names(ranks) == text
