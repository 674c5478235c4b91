"""Ways to divide ranks into groups: hosts first, each axis with several groups, no way twice."""

from __future__ import annotations

from support.synthetic import Job, in_memory

from distprof.merge.job.rank_groups import HOST, RankGroup, partitions
from distprof.merge.job.topology import job_topology
from distprof.merge.load.run import run_of_shards


def groups_of(job: Job, hosts: int) -> dict[str, list[RankGroup]]:
    """Returns the groups by kind of a job with so many hosts."""
    layout = job_topology(run_of_shards(in_memory(job)))
    found = partitions({rank: f"node{rank * hosts // job.world}" for rank in range(job.world)}, layout)
    return {groups[0].kind: groups for groups in found}


def test_groups_of_every_axis() -> None:
    """tp runs fastest, then dp, then pp."""
    found = groups_of(Job(dp=4, tp=2, pp=2, ep=2, layers=2, steps=1), hosts=2)
    assert list(found) == [HOST, "dp", "tp", "pp", "ep", "mp"]
    assert found[HOST] == [RankGroup(HOST, "node0", tuple(range(8))), RankGroup(HOST, "node1", tuple(range(8, 16)))]
    assert found["tp"][3] == RankGroup("tp", "dp 3", (6, 7)) or found["tp"][3] == RankGroup("tp", "dp 3, pp 0", (6, 7))
    assert RankGroup("dp", "tp 1, pp 0", (1, 3, 5, 7)) in found["dp"]
    assert RankGroup("pp", "dp 1, tp 0", (2, 10)) in found["pp"]
    assert RankGroup("ep", "", (1, 3)) in found["ep"]
    assert RankGroup("mp", "dp 1", (2, 3, 10, 11)) in found["mp"]
    for groups in found.values():
        assert sorted(rank for group in groups for rank in group.ranks) == list(range(16))


def test_what_divides_nothing_or_like_hosts_is_left_out() -> None:
    assert list(groups_of(Job(dp=4, layers=1, steps=1), hosts=1)) == [], "one host, one dp group"
    assert list(groups_of(Job(dp=4, layers=1, steps=1), hosts=4)) == [], "hosts of one rank"
    assert list(groups_of(Job(dp=2, tp=2, layers=1, steps=1), hosts=2)) == [HOST, "dp"], "hosts are the tp groups"
