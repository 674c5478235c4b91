"""Tests of which shard is used for a rank: the same one in the report and in the last line of a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distprof.launcher.job_summary import read_rank_summaries
from distprof.merge.load.run import load_run
from distprof.rank.selection import Selection, select_shards
from distprof.records import ALONE, ENVIRONMENT, FORWARD, GROUP, Counts, Header, Plan, Step
from distprof.run_folder import RunFolder, create
from distprof.shard.writer import FileSink, ShardWriter


@dataclass(frozen=True)
class Seen:
    header: Header
    source: str
    has_data: bool = True
    last_ns: int = 0


def seen(rank: int, generation: int = 0, *, world: int = 2, claim: str = ENVIRONMENT, has_data: bool = True) -> Seen:
    header = Header("x", rank, world, generation=generation, claim=claim, wall_ns=generation)
    return Seen(header, f"rank{rank}.g{generation}", has_data)


def write(run: RunFolder, rank: int, generation: int, world: int, wall_ns: int) -> None:
    writer = ShardWriter(FileSink(run.shard_path(rank, generation)))
    header = Header("id", rank, world_size=world, generation=generation, wall_ns=wall_ns)
    for record in (
        header,
        Plan(1, 1, 1),
        Counts(1, FORWARD, 1, 1),
        Step(2, FORWARD, 1, 2, {"other": 2}, 1, 1, 1, 1, "rss"),
    ):
        writer.write(record)
    writer.close()


def test_newest_shard_with_data_speaks_for_its_rank() -> None:
    empty, full, old = seen(0, 2, has_data=False), seen(0, 1), seen(0, 0)
    other = seen(1)
    found = select_shards([other, old, empty, full])
    assert (found.chosen, found.passed_over) == ([full, other], [empty, old])


def test_stronger_claim_comes_before_newer_shard() -> None:
    rank, helper = seen(0, 0, claim=GROUP), seen(0, 1, world=1, claim=ALONE)
    found = select_shards([helper, rank])
    assert (found.chosen, found.beside, found.world_size) == ([rank], [helper], 2)


def test_ranks_beyond_the_newest_world_size_are_left_out() -> None:
    before, now = [seen(rank, world=3) for rank in range(3)], [seen(rank, 1) for rank in range(2)]
    found = select_shards([*before, *now])
    assert (found.chosen, found.passed_over, found.outside) == (now, before[:2], before[2:])


def test_no_shards_select_nothing() -> None:
    found: Selection[Seen] = select_shards([])
    assert (found.chosen, found.job, found.world_size, found.run_id) == ([], [], 0, "")


def test_report_and_last_line_agree_where_hosts_clocks_do_not(tmp_path: Path) -> None:
    """Rank 0 moved to a host whose clock is behind when the job grew from 2 to 3 ranks."""
    run = create(tmp_path, "x", shared=False)
    for rank, generation, world, wall_ns in (
        (0, 0, 2, 100),
        (1, 0, 2, 100),
        (0, 1, 3, 40),
        (1, 1, 3, 41),
        (2, 0, 3, 42),
    ):
        write(run, rank, generation, world, wall_ns)
    summaries, unread = read_rank_summaries(run)
    ranks = [(summary.header.rank, summary.header.generation) for summary in summaries]
    assert (ranks, unread) == ([(0, 1), (1, 1), (2, 0)], [])
    assert [(data.rank, data.header.generation) for data in load_run(run.path).ranks] == ranks
