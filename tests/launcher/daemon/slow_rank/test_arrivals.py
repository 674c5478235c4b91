"""Tests of what one look at the collectives of all ranks says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from distprof.heartbeat.slot import GroupProgress, Position, State
from distprof.launcher.daemon.slow_rank.arrivals import Look, RankPosition, look_at

#: A group of a rank: the ranks of the group, and its last enqueued and completed collective there.
Groups = Sequence[tuple[Sequence[int], int, int]]


def seen(rank: int, groups: Groups, place: str = "", iteration: int = 7, duration_ns: int = 100) -> RankPosition:
    made = tuple(
        GroupProgress("g", len(members), hash(tuple(members)) % 2**64, enqueued, completed)
        for members, enqueued, completed in groups
    )
    return RankPosition(rank, place, Position(iteration, duration_ns, State.QUIET, True, 0, made))


def look(groups: Mapping[int, Groups], places: Mapping[int, str] | None = None) -> Look:
    return look_at([seen(rank, found, (places or {}).get(rank, "")) for rank, found in groups.items()])


ALL = (0, 1, 2, 3)


def test_the_last_one_to_arrive_is_the_slowest() -> None:
    found = look({0: [(ALL, 9, 8)], 1: [(ALL, 11, 8)], 2: [(ALL, 8, 8)], 3: [(ALL, 9, 8)]})
    assert (found.slowest, found.lost, found.compared, found.waiting) == (2, 1.0, 4, frozenset({0, 1, 3}))
    assert found.iteration == 7


@pytest.mark.parametrize(
    "progress",
    [
        {0: (9, 8), 1: (9, 8), 2: (9, 8), 3: (9, 8)},  # all have arrived
        {0: (9, 8), 1: (9, 8), 2: (8, 8), 3: (8, 8)},  # two have not
        {0: (8, 8), 1: (8, 8), 2: (8, 8), 3: (9, 8)},
        {0: (9, 9), 1: (9, 9), 2: (8, 8), 3: (9, 9)},  # completed without rank 2: the numbers do not belong together
        {0: (9, 8), 1: (9, 8), 2: (-1, -1), 3: (9, 8)},  # not known
        {0: (9, -1), 1: (9, -1), 2: (8, -1), 3: (9, -1)},
    ],
)
def test_nobody_is_the_slowest(progress: Mapping[int, tuple[int, int]]) -> None:
    found = look({rank: [(ALL, *numbers)] for rank, numbers in progress.items()})
    assert found.slowest is None and found.waiting == frozenset()


def test_a_rank_that_waits_itself_is_not_the_cause() -> None:
    """A grid of 2 x 2: rank 2 waits for 3 in its row, so 0 waits for 2 in its column."""
    row0, row1, left, right = (0, 1), (2, 3), (0, 2), (1, 3)
    found = look(
        {
            0: [(row0, 5, 5), (left, 5, 4)],
            1: [(row0, 5, 5), (right, 5, 4)],
            2: [(row1, 5, 4), (left, 4, 4)],
            3: [(row1, 4, 4), (right, 4, 4)],
        }
    )
    assert (found.slowest, found.compared, found.waiting) == (3, 2, frozenset({0, 1, 2}))


def test_two_causes_name_nobody() -> None:
    assert look({0: [((0, 1), 5, 4)], 1: [((0, 1), 4, 4)], 2: [((2, 3), 5, 4)], 3: [((2, 3), 4, 4)]}).slowest is None


def test_pipeline_stages_are_not_compared() -> None:
    late: dict[int, Groups] = {0: [(ALL, 9, 8)], 1: [(ALL, 9, 8)], 2: [(ALL, 9, 8)], 3: [(ALL, 8, 8)]}
    stages = {0: "dp 0, pp 0", 1: "dp 1, pp 0", 2: "dp 0, pp 1", 3: "dp 1, pp 1"}
    assert look(late).slowest == 3 and look(late, stages).slowest is None
    late[3] = [*late[3], ((2, 3), 1, 1)]
    late[2] = [*late[2], ((2, 3), 2, 1)]
    assert look(late, stages).slowest == 3


def test_groups_of_the_same_members_are_joined_by_their_order() -> None:
    found = look({rank: [(ALL, 3, 3), (ALL, 2 if rank == 1 else 3, 2)] for rank in ALL})
    assert found.slowest == 1


def test_without_groups_durations_are_compared() -> None:
    def slowest(*durations: int) -> Look:
        return look_at([seen(rank, [], duration_ns=duration) for rank, duration in enumerate(durations)])

    assert (slowest(100, 100, 200, 101).slowest, slowest(100, 100, 200, 101).lost) == (2, 0.5)
    assert slowest(100, 100, 104, 101).slowest is None
    assert slowest(100, 200, 0, 100).slowest is None, "the duration of rank 2 is not known"
