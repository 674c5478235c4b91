"""Tests of what ``top`` and ``status`` say of the ranks, and of the plan of a further window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from distprof.commands.live.paragraph import paragraph
from distprof.commands.live.rows import COLUMNS, SORT_KEYS, heading, rows
from distprof.commands.live.table import text
from distprof.commands.live.trigger import outcome, parse_ranks
from distprof.errors import UsageError
from distprof.heartbeat.hang_file import Hang
from distprof.launcher.daemon.hang_watch.evidence import Members, NodeEvidence, RankEvidence
from distprof.launcher.daemon.job_view import view
from distprof.launcher.daemon.requests import WindowRequest, window_request
from distprof.launcher.daemon.slow_rank.history import Slowest
from distprof.launcher.daemon.status import NodeStatus, RankStatus, from_message, to_message
from distprof.launcher.daemon.trigger import Answers, answers, plan_request

NOW = 1_800_000_000_000_000_000
RANK = RankStatus(
    rank=0,
    world_size=4,
    local_rank=0,
    pid=100,
    host="a",
    place="dp 0",
    device="cpu",
    state="quiet",
    iteration=100,
    age_s=0.05,
    limit_s=60.0,
    iteration_ns=100_000_000,
    median_ns=110_000_000,
    p99_ns=200_000_000,
    window=0,
    window_end=16,
    phase="",
    module="",
    activity_age_s=None,
    data_ns=None,
    timed_ns=None,
    samples=None,
    peak_bytes=None,
    resident_bytes=1 << 30,
    error="",
    request=0,
    request_window=0,
    refusal="",
)


def ranks(number: int, **changed: Mapping[int, Any]) -> tuple[RankStatus, ...]:
    """``ranks(4, iteration={3: 90})``: all are like RANK but for what is changed of some."""
    return tuple(
        replace(RANK, rank=rank, world_size=number, **{name: of[rank] for name, of in changed.items() if rank in of})
        for rank in range(number)
    )


def node(*found: RankStatus, name: str = "a", wall_ns: int = NOW, request: int = 0) -> NodeStatus:
    return NodeStatus(name, name, wall_ns, request, found)


def marks(*nodes: NodeStatus) -> list[str]:
    return [rank.mark for rank in view(nodes, NOW).ranks]


def test_healthy_ranks_have_no_mark() -> None:
    job = view([node(*ranks(4, iteration={3: 99}))], NOW)
    assert [rank.mark for rank in job.ranks] == [""] * 4
    assert [rank.lag for rank in job.ranks] == [0, 0, 0, 1]
    assert [rank.iterations_per_s for rank in job.ranks] == [10.0] * 4
    assert (job.missing, job.world_size, job.runs) == ((), 4, True)


def test_slow_by_lag_and_by_pace() -> None:
    assert marks(node(*ranks(4, iteration={3: 98}, iteration_ns={1: 130_000_000}))) == ["", "slow", "", "slow"]


def test_stuck_after_its_own_limit() -> None:
    found = ranks(5, age_s={1: 59.0, 2: 61.0, 3: 190.0, 4: 201.0}, limit_s={3: 200.0, 4: 200.0})
    assert marks(node(*found)) == ["", "", "stuck", "", "stuck"]


SLOWEST = Slowest(2, 31, 50, 0.17)


def test_the_rank_that_is_slowest_again_and_again_is_named() -> None:
    said = "rank 2 has been the slowest in 31 of the last 50 sampled iterations, which costs about 17% of the time"
    job = view(
        [replace(node(*ranks(4)), slowest=SLOWEST), replace(node(name="b"), slowest=Slowest(3, 40, 50, 0.1))], NOW
    )
    assert [rank.mark for rank in job.ranks] == ["", "", "slow", ""] and job.slowest == SLOWEST
    assert heading(job) == f"4 of 4 ranks run, iteration 100, {said}"
    assert f"R{said[1:]}." in paragraph(job) and "Slow:" not in paragraph(job)
    assert job.fields()["slowest"] == {"rank": 2, "iterations": 31, "sampled": 50, "lost": 0.17}


def test_a_rank_that_has_ended_is_not_the_slowest() -> None:
    assert view([replace(node(*ranks(4, state={2: "ended"})), slowest=SLOWEST)], NOW).slowest is None


HANG = Hang("rank dead", (3,), (0, 1), 100, 75.0, NOW, "rank 3 died", "rank 3 dead since iteration 100", ("RAS",))


def test_a_hang_is_shown_in_the_place_of_ranks_that_are_stuck() -> None:
    found = replace(node(*ranks(4, age_s={0: 75.0})), hang=HANG)
    job = view([found], NOW)
    assert "The job stands still, rank dead: rank 3 died. Rank 3 dead since iteration 100." in paragraph(job)
    assert "is stuck" not in paragraph(job) and heading(job).endswith("stands still, rank dead: rank 3 died")
    assert job.fields()["hang"]["ranks"] == (3,)


def test_a_hang_and_evidence_survive_the_way_through_msgpack() -> None:
    evidence = NodeEvidence(
        (RankEvidence(3, "quiet", 9, 100, 75.0, 60.0, progress={"k": (4, 3)}),), {"k": Members("g", (1, 3))}
    )
    status = replace(node(*ranks(1)), evidence=evidence, hang=HANG, slowest=SLOWEST)
    assert from_message(msgpack.unpackb(msgpack.packb(to_message(status)))) == status


def test_states_of_ranks_that_do_not_run() -> None:
    found = ranks(4, state={1: "ended", 2: "dead", 3: "unseen"}, age_s={1: 999.0, 2: 999.0, 3: 999.0})
    job = view([node(*found)], NOW)
    assert [rank.mark for rank in job.ranks] == ["", "ended", "dead", "unseen"]
    assert [rank.lag for rank in job.ranks] == [0, None, None, None]


def test_nodes_that_are_silent_and_ranks_that_are_missing() -> None:
    one, two, *_ = ranks(4)
    job = view([node(one), node(two, name="b", wall_ns=NOW - 16_000_000_000)], NOW)
    assert [rank.mark for rank in job.ranks] == ["", "silent"]
    assert job.missing == (2, 3)


def test_the_newest_status_of_a_restarted_rank_counts() -> None:
    (old,) = ranks(1, state={0: "dead"})
    (new,) = ranks(1, iteration={0: 3})
    job = view([node(new, name="b"), node(old, wall_ns=NOW - 5_000_000_000)], NOW)
    assert [(rank.status.iteration, rank.mark) for rank in job.ranks] == [(3, "")]


def test_what_daemons_of_an_earlier_launch_had_found_is_not_shown() -> None:
    old = replace(node(*ranks(2), wall_ns=NOW - 90_000_000_000), hang=HANG, slowest=Slowest(1, 50, 50, 0.5))
    job = view([old, node(*ranks(2))], NOW)
    assert (job.hang, job.slowest) == (None, None)
    assert view([old], NOW).hang == HANG


def test_ranks_that_a_smaller_job_in_this_folder_has_no_more_are_not_shown() -> None:
    old = node(*ranks(8, state=dict.fromkeys(range(8), "dead")), wall_ns=NOW - 90_000_000_000)
    job = view([node(*ranks(4), name="b"), old], NOW)
    assert [rank.status.rank for rank in job.ranks] == [0, 1, 2, 3]
    assert (job.world_size, job.missing) == (4, ())
    assert len(view([old], NOW).ranks) == 8


def test_a_row_for_each_rank_in_the_order_that_was_asked_for() -> None:
    found = ranks(3, iteration={1: 90}, data_ns={2: 5_000_000}, resident_bytes={0: 1 << 20})
    found = (replace(found[0], wait_share=0.1), found[1], replace(found[2], slowest_in=31, sampled=50))
    job = view([node(*found)], NOW)
    order = {sort: [int(row.cells[0]) for row in rows(job, sort)] for sort in SORT_KEYS}
    assert order["rank"] == [0, 1, 2] and order["iteration"] == [1, 0, 2] and order["lag"] == [1, 0, 2]
    assert order["data"][0] == 2 and order["memory"] == [1, 2, 0]
    assert order["wait"][0] == 0 and order["slowest"] == [2, 0, 1]
    first, *_, last = (dict(zip(COLUMNS, row.cells, strict=True)) for row in rows(job, "rank"))
    assert (first["waits"], first["slowest"], last["waits"], last["slowest"]) == ("10%", "n/a", "n/a", "31 of 50")
    first = dict(zip(COLUMNS, rows(job, "rank")[0].cells, strict=True))
    assert first["iteration"] == "100" and first["it/s"] == "10" and first["memory"] == "1 MiB"
    assert first["data wait"] == "n/a" and first["place"] == "dp 0"


def test_collectives_have_a_column_while_there_are_any() -> None:
    names = {"collective_group": {0: "tp"}, "collective_op": {0: "all_reduce"}}
    found = ranks(3, **names, collective_number={0: 7, 1: 8}, collective_runs={0: True, 1: False})
    found = (found[0], replace(found[1], collective_group="dp"), found[2])
    job = view([node(*found)], NOW)
    place = COLUMNS.index("collective")
    assert [row.cells[place] for row in rows(job, "rank")] == ["all_reduce 7 of tp", "collective 8 of dp, done", "-"]
    assert "all_reduce 7 of tp" in text(job, "rank")
    assert "Last seen in all_reduce 7 of tp: rank 0." in paragraph(job) and "8 of dp" not in paragraph(job)
    assert "collective" not in text(view([node(*ranks(3))], NOW), "rank")


def test_hosts_are_folded_above_64_ranks_and_marked_ranks_stay() -> None:
    found = ranks(128, host=dict.fromkeys(range(64, 128), "b"), iteration={70: 80}, age_s={5: 99.0})
    job = view([node(*found[:64]), node(*found[64:], name="b")], NOW)
    assert [row.cells[0] for row in rows(job, "rank")] == ["ranks 0-63", "5", "ranks 64-127", "70"]
    second = dict(zip(COLUMNS, rows(job, "rank")[2].cells, strict=True))
    assert (second["iteration"], second["lag"], second["state"], second["host"]) == ("80-100", "20", "1 slow", "b")
    assert len(rows(view([node(*ranks(64))], NOW), "rank")) == 64


def test_the_table_shows_names_from_elsewhere_as_they_are() -> None:
    found = ranks(1, host={0: "[bold]x[/bold]"}, module={0: "a\x1b[31m"}, phase={0: "forward"}, activity_age_s={0: 9.0})
    shown = text(view([node(*found)], NOW), "rank")
    assert "[bold]x[/bold]" in shown and "\x1b" not in shown and "forward (9 s ago)" in shown


def test_heading_and_paragraph() -> None:
    found = ranks(4, iteration={2: 96}, age_s={1: 75.0}, state={3: "dead"}, error={3: "RuntimeError: x"})
    job = view([node(*found)], NOW)
    assert heading(job) == "3 of 4 ranks run, iteration 100"
    assert paragraph(job) == (
        "3 of 4 ranks run on a. Iterations 96 to 100, 10 iterations a second. Rank 1 is stuck: iteration 100 runs for "
        "75 s; 99% of its iterations took at most 0.2 s. Slow: rank 2, at most 4 iterations behind the furthest rank. "
        "Rank 3 died: the process has gone without an end. Rank 3 had an error: RuntimeError: x."
    )


def test_before_the_first_beat_no_rank_has_started() -> None:
    job = view([node()], NOW)
    assert heading(job) == "no rank has started yet: a rank is seen from the first call of its model on"
    assert paragraph(job) == "No rank has started yet: a rank is seen from the first call of its model on."
    assert job.awaits_ranks and not job.runs
    assert not view([node(wall_ns=NOW - 16_000_000_000)], NOW).awaits_ranks  # its daemon has ended
    assert not view([node(*ranks(1))], NOW).awaits_ranks


# ---- messages ------------------------------------------------------------------------------------------------------


def test_a_status_survives_the_way_through_msgpack_and_is_small() -> None:
    found = ranks(8, module={3: "layers.7.mlp"}, activity_age_s={3: 0.25})
    collective: dict[str, Any] = {"collective_group": "mesh_tp", "collective_op": "reduce_scatter"}
    collective |= {"collective_number": 123_456, "collective_runs": True}
    found = tuple(replace(rank, slowest_in=31, sampled=50, wait_share=0.171, **collective) for rank in found)
    status = node(*found, request=3)
    packed = msgpack.packb(to_message(status))
    assert len(packed) < 2048  # what a node may put into the store of a large job, once a second
    assert from_message(msgpack.unpackb(packed)) == status


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("iteration", "7"), ("iteration", True), ("age_s", None), ("host", "x" * 500), ("p99_ns", 1.5)],
        ("collective_runs", 1),
    ],
)
def test_a_status_with_a_wrong_value_is_refused(name: str, value: object) -> None:
    message = to_message(node(RANK))
    message["ranks"][0][[field.name for field in fields(RankStatus)].index(name)] = value
    with pytest.raises(ValueError, match=name):
        from_message(message)


@pytest.mark.parametrize("ranks", [None, 7, [7], [{}], [[]], [[None] * len(fields(RankStatus))]])
def test_a_status_without_ranks_is_refused(ranks: object) -> None:
    with pytest.raises(ValueError):
        from_message({**to_message(node()), "ranks": ranks})
    with pytest.raises(ValueError):
        from_message({**to_message(node(RANK)), "ranks": to_message(node(RANK))["ranks"] * 257})
    with pytest.raises(ValueError):
        from_message({**to_message(node()), "version": 2})
    malformed: list[object] = [[], 7, {"rank": 1}, {"rank": "1", "iterations": 1, "sampled": 1, "lost": 0.1}]
    for slowest in malformed:
        with pytest.raises(ValueError):
            from_message({**to_message(node()), "slowest": slowest})


# ---- windows on demand ---------------------------------------------------------------------------------------------


def test_a_window_begins_where_no_rank_has_been_when_it_hears_of_it() -> None:
    found = ranks(4, iteration={2: 105}, median_ns={0: 50_000_000})
    request = plan_request([node(*found)], 1, 10, None, now_ns=NOW)
    assert (request.number, request.window, request.counted, request.timed, request.ranks) == (1, 1, 1, 10, None)
    assert request.start == max(105 + 10, 100 + 20) + 3  # a second of rank 2, and of rank 0 at twice that pace


def test_several_nodes_get_more_time_and_old_statuses_too() -> None:
    one, two = ranks(2)
    nodes = [node(one), node(two, name="b", wall_ns=NOW - 4_000_000_000)]
    assert plan_request(nodes, 0, 3, None, now_ns=NOW).start == 100 + 10 * (6 + 4) + 3


def test_a_window_follows_those_that_run_or_wait() -> None:
    found = ranks(2, window={0: 2}, window_end={1: 700}, request={1: 6}, request_window={1: 4})
    request = plan_request([node(*found, request=8)], 1, 10, [1], last_request=9, now_ns=NOW)
    assert (request.number, request.window, request.start, request.ranks) == (10, 5, 700, (1,))


def test_a_window_needs_ranks_that_run() -> None:
    with pytest.raises(UsageError, match="no rank of this job runs"):
        plan_request([node(*ranks(2, state={0: "ended", 1: "dead"}))], 1, 1, None, now_ns=NOW)
    with pytest.raises(UsageError, match="rank 7 does not run"):
        plan_request([node(*ranks(2))], 1, 1, [0, 7], now_ns=NOW)


def test_a_window_is_planned_by_the_newest_status_of_each_rank() -> None:
    """The daemon of an earlier launch in this folder was killed: the last that it wrote is that its ranks run."""
    old = node(*ranks(2, iteration={0: 50_000, 1: 50_000}), wall_ns=NOW - 20_000_000_000)
    new = node(*ranks(2), name="b")
    for nodes in ([new, old], [old, new]):
        request = plan_request(nodes, 1, 10, None, now_ns=NOW)
        assert request.start == 100 + 10 * 6 + 3
        assert answers(nodes, request, NOW).silent == (0, 1)


def test_ranks_of_daemons_that_were_not_heard_for_long_do_not_run() -> None:
    old = node(*ranks(2), wall_ns=NOW - 130_000_000_000)
    with pytest.raises(UsageError, match="no rank of this job runs: its daemons were last heard 130 s ago"):
        plan_request([old], 1, 10, None, now_ns=NOW)
    (here, other) = ranks(2)
    nodes = [node(here), node(other, name="b", wall_ns=NOW - 130_000_000_000)]
    request = plan_request(nodes, 1, 10, None, now_ns=NOW)
    assert answers(nodes, request, NOW).silent == (0,)


def test_answers_are_those_to_this_request() -> None:
    request = WindowRequest(3, 120, 1, 10, 1)
    found = ranks(4, request={0: 3, 1: 3, 2: 2}, refusal={1: "iteration 120 has passed", 2: "old"})
    assert answers([node(*found)], request, NOW) == Answers((0,), {1: "iteration 120 has passed"}, (2, 3))
    line = outcome(Path("runs/x"), request, answers([node(*found)], request, NOW))
    assert line == (
        "1 of 4 ranks record window 1 from iteration 120 on  ->  distprof merge runs/x --window 1; "
        "rank 1 refused: iteration 120 has passed; ranks 2-3 did not answer yet"
    )


def test_requests_are_checked() -> None:
    request = WindowRequest(3, 120, 1, 10, 1, (0, 8))
    assert window_request(msgpack.unpackb(msgpack.packb(request.message()))) == request
    for name, value in (
        *(("number", 0), ("start", -1), ("counted", 2), ("timed", 1 << 40), ("window", "1"), ("number", True)),
        *(("ranks", "all"), ("ranks", [1.5])),
    ):
        with pytest.raises(ValueError):
            window_request({**request.message(), name: value})
    with pytest.raises(ValueError):
        window_request({**request.message(), "counted": 0, "timed": 0})


def test_lists_of_ranks() -> None:
    assert parse_ranks("0,8, 16-18") == {0, 8, 16, 17, 18}
    for text_ in ("", "a", "1-", "-1", "3-1", "1,,2", "1-99999999"):
        with pytest.raises(UsageError):
            parse_ranks(text_)
