"""What is found at a path, what is said about the rest, and which shard speaks for a rank."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from support.shards import edges
from support.synthetic import RUN_ID, Job, in_memory, rank_records, write_run, write_shard

from distprof.errors import DataError
from distprof.merge.load.run import load_run, run_of_shards
from distprof.records import FORWARD, TRAINING, Counts, End, Error, Header, Plan, Record, Step
from distprof.run_folder import Manifest, RunFolder
from distprof.shard.reader import read_shard


def the_only_line(folder: Path) -> str:
    """What load_run raises, which is to be one sentence for people."""
    with pytest.raises(DataError) as caught:
        load_run(folder)
    assert caught.value.exit_code == 1
    line = str(caught.value)
    assert line and "\n" not in line
    return line


def the_only_note(folder: Path) -> str:
    (note,) = load_run(folder).notes
    return note


def with_header(records: Iterable[Record], **changes: object) -> list[Record]:
    header, *rest = records
    assert isinstance(header, Header)
    return [replace(header, **changes), *rest]  # type: ignore[arg-type]


def shard(folder: Path, rank: int, generation: int = 0) -> Path:
    return RunFolder(folder).shard_path(rank, generation)


# ---- paths -----------------------------------------------------------------------------------------------------------


def test_a_run_folder_gives_its_ranks_in_order_and_its_name(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", dp=3))
    assert [data.rank for data in run.ranks] == [0, 1, 2]
    assert (run.name, run.run_id, run.world_size, run.missing_ranks, run.notes) == ("demo", RUN_ID, 3, (), ())


def test_shards_copied_together_are_a_run_without_a_name(tmp_path: Path) -> None:
    write_run(tmp_path / "run", dp=2)
    shutil.copytree(tmp_path / "run" / "shards", tmp_path / "copied")
    run = load_run(tmp_path / "copied")
    assert [data.rank for data in run.ranks] == [0, 1]
    assert run.name == RUN_ID


def test_a_path_that_is_missing(tmp_path: Path) -> None:
    assert the_only_line(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'} does not exist")


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    write_run(tmp_path / "run", dp=1)
    assert "is a file, not a run's folder" in the_only_line(shard(tmp_path / "run", 0))


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    assert "is no run" in the_only_line(tmp_path)


def test_the_folder_around_runs_names_them(tmp_path: Path) -> None:
    write_run(tmp_path / "first", dp=1)
    write_run(tmp_path / "second", dp=1)
    assert the_only_line(tmp_path).endswith("give one of them: first, second")


def test_an_empty_run_says_why_that_may_be(tmp_path: Path) -> None:
    line = the_only_line(write_run(tmp_path / "run", dp=2, missing=(0, 1)))
    assert "no rank recorded anything" in line
    assert "no rank called a model" in line
    assert "-I" in line


def test_a_damaged_manifest(tmp_path: Path) -> None:
    write_run(tmp_path / "run", dp=1)
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json is no manifest" in the_only_line(tmp_path / "run")


def test_progress_counts_the_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_run(write_run(tmp_path / "run", dp=3), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---- what must not be merged -----------------------------------------------------------------------------------------


def test_two_runs_mixed_names_both_and_a_file_of_each(tmp_path: Path) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        return with_header(records, run_id="another") if rank == 2 else records

    line = the_only_line(write_run(tmp_path / "run", dp=4, bend=bend))
    assert "rank00002.g0.msgpack is of run another" in line
    assert f"rank00000.g0.msgpack of run {RUN_ID}" in line


@pytest.mark.parametrize("schema", [(4, 0), (2, 1)])
def test_another_schema_is_refused(tmp_path: Path, schema: tuple[int, int]) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        return with_header(records, schema=schema) if rank == 1 else records

    line = the_only_line(write_run(tmp_path / "run", dp=2, bend=bend))
    assert f"rank00001.g0.msgpack is of schema {schema[0]}.{schema[1]}, and distprof" in line
    assert ("merge with distprof 0.1, which reads it" in line) == (schema == (2, 1))


def test_shards_of_another_run_than_the_manifest_are_noted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=2, bend=lambda _, records: with_header(records, run_id="another"))
    assert the_only_note(folder).startswith(f"run.json is of run {RUN_ID}, but the shards are of run another")


# ---- what is missing or damaged --------------------------------------------------------------------------------------


def test_missing_ranks_are_listed(tmp_path: Path) -> None:
    assert load_run(write_run(tmp_path / "run", dp=5, missing=(1, 4))).missing_ranks == (1, 4)


def test_a_torn_shard_keeps_what_reads_and_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=2, steps=4)
    file = shard(folder, 1)
    last_step = max(number for number, record in enumerate(read_shard(file).records) if isinstance(record, Step))
    os.truncate(file, edges(file.read_bytes())[last_step + 1] - 20)
    note = the_only_note(folder)
    assert note.startswith("rank00001.g0.msgpack: the last record is torn (")
    whole, torn = load_run(folder).ranks
    assert torn.windows[TRAINING, 0].iterations == whole.windows[TRAINING, 0].iterations[:-1]
    assert torn.why_incomplete(TRAINING, 0) == "3 of 4 timed steps, still running, killed or unable to write"


@pytest.mark.parametrize("content", [b"", b"not a shard", bytes(1000)])
def test_a_file_that_is_no_shard_is_named_and_left_out(tmp_path: Path, content: bytes) -> None:
    folder = write_run(tmp_path / "run", dp=2)
    shard(folder, 1).write_bytes(content)
    assert the_only_note(folder).startswith("rank00001.g0.msgpack: left out, the file ")
    assert load_run(folder).missing_ranks == (1,)


def test_a_file_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=2)
    shard(folder, 1).unlink()
    shard(folder, 1).symlink_to(tmp_path / "gone")
    assert the_only_note(folder) == (
        "rank00001.g0.msgpack: left out, the file could not be read (No such file or directory)"
    )


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=1)
    shard(folder, 0).write_bytes(b"")
    assert "rank00000.g0.msgpack is empty" in the_only_line(folder)


def test_alike_damage_is_one_note(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=6)
    for rank in range(1, 6):
        shard(folder, rank).write_bytes(b"")
    assert the_only_note(folder).startswith(
        "rank00001.g0.msgpack, rank00002.g0.msgpack, rank00003.g0.msgpack and 2 more: left out"
    )


def test_a_recorder_that_failed_is_noted_with_its_ranks(tmp_path: Path) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        return [*records[:-4], Error("timing", "KeyError: 3")] if rank in (1, 2) else records

    folder = write_run(tmp_path / "run", dp=4, bend=bend)
    assert the_only_note(folder).startswith("the recorder failed on ranks 1-2 in timing: KeyError: 3")
    assert load_run(folder).ranks[1].why_incomplete(TRAINING, 0).endswith("the recorder failed in timing")


def test_a_lost_tree_loses_module_times_only(tmp_path: Path) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        return [record for record in records if record.KIND != "tree"]

    (data,) = load_run(write_run(tmp_path / "run", dp=1, bend=bend)).ranks
    assert len(data.tree) == 0
    assert data.windows[TRAINING, 0].steps == 3
    assert data.layers == ()


ENDED_BY_LAUNCHER = (
    "ended without an exception of its own: its launcher ends all ranks when one fails, or when nodes come or go"
)

# ---- restarts --------------------------------------------------------------------------------------------------------


def test_the_newest_generation_with_data_speaks_for_a_rank(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=2, steps=2)
    again = with_header(rank_records(Job(dp=2, steps=4), 0), generation=1)
    killed_at_once = with_header(rank_records(Job(dp=2), 0), generation=2)[:5]
    write_shard(shard(folder, 0, 1), again)
    write_shard(shard(folder, 0, 2), killed_at_once)
    run = load_run(folder)
    assert [data.header.generation for data in run.ranks] == [1, 0]
    assert run.ranks[0].windows[TRAINING, 0].steps == 4
    assert run.notes == (
        "rank 0 started more than once: generation 1, the newest with data, is reported",
        f"generation 0 of rank 0 {ENDED_BY_LAUNCHER}",
        f"generation 2 of rank 0 {ENDED_BY_LAUNCHER}",
    )


def test_why_former_generations_ended_is_told(tmp_path: Path) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        if rank == 0:
            return records
        failure = "ValueError: planted\nand more" if rank == 1 else ""
        return [*records, End("exit", 9, failure)]

    folder = write_run(tmp_path / "run", dp=3, bend=bend)
    for rank in range(3):
        write_shard(shard(folder, rank, 1), with_header(rank_records(Job(dp=3), rank), generation=1))
    assert load_run(folder).notes[1:] == (
        f"generation 0 of rank 0 {ENDED_BY_LAUNCHER}",
        "generation 0 of rank 1 ended with ValueError: planted",
        "generation 0 of rank 2 ended with its script",
    )


def test_without_any_data_the_newest_generation_stands(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=1, bend=lambda _, records: records[:5])
    write_shard(shard(folder, 0, 1), with_header(rank_records(Job(dp=1), 0), generation=1)[:5])
    (data,) = load_run(folder).ranks
    assert data.header.generation == 1


def test_ranks_of_an_earlier_larger_start_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", dp=4)
    for rank in range(2):
        write_shard(shard(folder, rank, 1), with_header(rank_records(Job(dp=2), rank), generation=1))
    run = load_run(folder)
    assert (run.world_size, [data.rank for data in run.ranks], run.missing_ranks) == (2, [0, 1], ())
    assert "ranks 2-3 left out: of an earlier start of the job, with 4 ranks" in run.notes


def test_an_earlier_job_of_the_same_name_is_named_and_left_out(tmp_path: Path) -> None:
    """Its ranks were more, and a rank of it is the newest that holds data; this job's restarts are still its own."""
    folder = write_run(tmp_path / "run", dp=4, bend=lambda _, records: with_header(records, launch="a", launched_ns=1))
    after = max(data.last_ns for data in load_run(folder).ranks) + 1
    now = {"launch": "b", "launched_ns": after}
    for generation in (1, 2):
        again = with_header(rank_records(Job(dp=2), 0), **now, generation=generation, wall_ns=after + generation)
        write_shard(shard(folder, 0, generation), again if generation == 1 else again[:5])
    run = load_run(folder)
    assert (run.world_size, [data.header.generation for data in run.ranks], run.missing_ranks) == (2, [1], (1,))
    first = "rank00000.g0.msgpack, rank00001.g0.msgpack, rank00002.g0.msgpack and 1 more"
    assert run.notes == (
        "rank 0 started more than once: generation 1, the newest with data, is reported",
        f"generation 2 of rank 0 {ENDED_BY_LAUNCHER}",
        f"{first}: left out, of an earlier job of the same name, which had ended when this one was launched",
    )


def test_nodes_whose_clocks_disagree_are_one_job_and_that_is_said(tmp_path: Path) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        ahead = rank * 10**18
        own = [
            replace(record, start_wall_ns=ahead + iteration) if isinstance(record, Step) else record
            for iteration, record in enumerate(records)
        ]
        return with_header(own, launch=f"{rank}", host=f"node{rank}", launched_ns=ahead, wall_ns=ahead + 5)

    run = load_run(write_run(tmp_path / "run", dp=2, bend=bend))
    assert [data.rank for data in run.ranks] == [0, 1]
    assert run.notes == (
        "by the clocks of the hosts rank 0 had ended before the launch of rank 1: either they disagree, or rank 0 ran "
        "in an earlier job of the same name",
    )


# ---- completeness and mode -------------------------------------------------------------------------------------------


def test_a_whole_run_is_complete(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", dp=2))
    assert [data.why_incomplete(run.mode, 0) for data in run.ranks] == ["", ""]


@pytest.mark.parametrize(
    ("leave_out", "end", "why"),
    [
        ((Step,), "exit", "0 of 3 timed steps, the script ended"),
        ((Counts,), "exit", "3 of 3 timed steps, not counted, the script ended"),
        ((Step, Counts), "no module was called", "0 of 3 timed steps, not counted, no module was called"),
        ((Plan,), "exit", "its plan is missing"),
    ],
)
def test_why_a_rank_is_incomplete(tmp_path: Path, leave_out: tuple[type[Record], ...], end: str, why: str) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        return [*(record for record in records[:-1] if not isinstance(record, leave_out)), End(end, 9)]

    (data,) = load_run(write_run(tmp_path / "run", dp=1, bend=bend)).ranks
    assert data.why_incomplete(TRAINING, 0) == why


def test_training_is_the_mode_if_any_rank_trained(tmp_path: Path) -> None:
    forward = Job(dp=2, mode=FORWARD)
    folder = write_run(
        tmp_path / "run", dp=2, bend=lambda rank, records: rank_records(forward, 0) if not rank else records
    )
    run = load_run(folder)
    assert run.mode == TRAINING
    assert run.ranks[0].why_incomplete(run.mode, 0) == "it ran forward passes only, no training iterations"


def test_forward_is_the_mode_where_nothing_trains(tmp_path: Path) -> None:
    assert load_run(write_run(tmp_path / "run", dp=2, mode=FORWARD)).mode == FORWARD


def test_steps_of_another_mode_stay_out_of_the_window(tmp_path: Path) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        looks = [record for record in rank_records(Job(mode=FORWARD, steps=7), rank) if isinstance(record, Step)]
        return [*records[:6], *looks, *records[6:]]

    (data,) = load_run(write_run(tmp_path / "run", dp=1, bend=bend)).ranks
    assert (data.windows[TRAINING, 0].steps, data.windows[FORWARD, 0].steps) == (3, 7)


# ---- in memory -------------------------------------------------------------------------------------------------------


def test_shards_in_memory_are_a_run() -> None:
    run = run_of_shards(in_memory(Job(dp=2)))
    assert [data.rank for data in run.ranks] == [0, 1]


def test_no_shard_in_memory_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to merge"):
        run_of_shards([])


# ---- folders of several nodes ----------------------------------------------------------------------------------------


def test_the_folders_of_several_nodes_are_one_run(tmp_path: Path) -> None:
    first, second = (
        write_run(tmp_path / node, dp=4, missing=missing) for node, missing in (("a", (2, 3)), ("b", (0, 1)))
    )
    run = load_run(first, others=[second])
    assert ([data.rank for data in run.ranks], run.name, run.notes) == ([0, 1, 2, 3], "demo", ())
    assert load_run(second, others=[first]).ranks[0].rank == 0
    assert load_run(first).missing_ranks == (2, 3)


def test_a_launcher_may_have_named_the_run_on_each_node(tmp_path: Path) -> None:
    def bend(rank: int, records: list[Record]) -> list[Record]:
        return with_header(records, run_id="of-b")

    first = write_run(tmp_path / "a", dp=4, missing=(2, 3))
    second = write_run(tmp_path / "b", dp=4, missing=(0, 1), bend=bend, manifest=False)
    RunFolder(second).write_manifest(Manifest("of-b", "demo", ("train.py",), 4, 0))
    run = load_run(first, others=[second])
    assert (len(run.ranks), run.missing_ranks) == (4, ())
    (note,) = run.notes
    assert f"the runs of-b, {RUN_ID}" in note
    third = write_run(tmp_path / "c", dp=4, missing=(0, 2, 3), bend=bend)
    with pytest.raises(DataError, match="shards of 2 runs are mixed here"):
        load_run(first, others=[third])  # both have rank 1
    fourth = write_run(tmp_path / "d", dp=8, missing=range(7), bend=bend)
    with pytest.raises(DataError, match="shards of 2 runs are mixed here"):
        load_run(first, others=[fourth])  # another world size


def test_a_part_of_a_shard_that_the_first_node_has_is_no_second_start(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / node, dp=2, missing=(missing,)) for node, missing in (("a", 1), ("b", 0)))
    whole = rank_records(Job(dp=2), 1)
    write_shard(RunFolder(first).received_path(1, 0, 7), whole[:-3])
    run = load_run(first, others=[second])
    assert (run.notes, run.ranks[1].source) == ((), "rank00001.g0.msgpack")
    assert load_run(first).ranks[1].source == "rank00001.g0.00000007.msgpack"
