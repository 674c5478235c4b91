"""The blocks Ranks, Skew, Experts and the verdict."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.reports import report_of

from distprof.merge.experts.summary import summarise
from distprof.merge.quantities import duration
from distprof.merge.report import Report
from distprof.merge.skew.verdict import with_cost
from distprof.merge.text.blocks.moe.experts import experts_block
from distprof.merge.text.blocks.ranks import ALL_UP_TO, SHOWN_OF_MORE, ranks_block
from distprof.merge.text.blocks.skew import skew_block
from distprof.merge.text.blocks.verdict import verdict

JOB = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "slow_rank": 5}


def rows(lines: list[str]) -> dict[str, dict[str, str]]:
    """Returns the rows of a table by their first column, each as a map from title to cell."""
    titles = next(re.split(r"  +", line.strip()) for line in lines if line.lstrip().startswith("rank"))
    cells = [re.split(r"  +", line.lstrip("* ")) for line in lines if re.match(r"[* ]*\d", line)]
    return {row[0]: dict(zip(titles, row, strict=True)) for row in cells}


def verdict_text(report: Report) -> str:
    return " ".join(verdict(report))


def test_phases_of_a_rank_add_up_to_its_iteration() -> None:
    table = rows(list(ranks_block(report_of(**JOB))))
    assert list(table) == [str(rank) for rank in range(8)]
    for row in table.values():
        parts = sum(float(row[phase]) for phase in ("data wait", "forward", "backward", "optimizer", "other"))
        assert parts == pytest.approx(float(row["iteration"]), abs=0.5), "medians do not add up exactly"


def test_a_row_has_coordinates_and_host() -> None:
    row = rows(list(ranks_block(report_of(**JOB))))["5"]
    assert (row["dp"], row["tp"], row["ep"], row["host"]) == ("2", "1", "0", "node0")
    assert (row["peak memory"], row["steps"]) == ("305 MiB", "3")
    assert "pp" not in row, "axes of size 1 are left out"


def test_only_the_slow_rank_is_marked() -> None:
    lines = list(ranks_block(report_of(**JOB)))
    assert [line for line in lines if "*" in line.lstrip()[:1]] == [line for line in lines if " 5  " in line[:6]]
    assert not any("*" in line for line in ranks_block(report_of(dp=4)))


def test_the_slowest_of_many_ranks_are_shown() -> None:
    report = report_of(dp=ALL_UP_TO + 8, slow_rank=7, layers=2)
    lines = list(ranks_block(report))
    table = rows(lines)
    assert len(table) == SHOWN_OF_MORE
    assert next(iter(table)) == "7"
    iterations = [float(row["iteration"]) for row in table.values()][1:]
    assert iterations == sorted(iterations, reverse=True)
    assert lines[-1] == f"The slowest {SHOWN_OF_MORE} ranks; the other 24 are in summary.json."


def test_unseen_phases_are_na_and_unused_ones_left_out() -> None:
    report = report_of(dp=2)
    blind = tuple(replace(row, phases_ns={**row.phases_ns, "data": None}) for row in report.ranks)
    row = rows(list(ranks_block(replace(report, ranks=blind))))["0"]
    assert row["data wait"] == "n/a"
    assert "evaluation" not in row


def test_an_incomplete_rank_is_marked() -> None:
    report = report_of(dp=2)
    partial = (report.ranks[0], replace(report.ranks[1], complete=False, steps=2))
    assert rows(list(ranks_block(replace(report, ranks=partial))))["1"]["steps"] == "2 (incomplete)"


def test_skew_sorts_modules_by_excess() -> None:
    lines = list(skew_block(report_of(**JOB)))
    first = lines[next(i for i, line in enumerate(lines) if line.startswith("module")) + 1]
    assert re.match(r"blocks\.1\.moe\.router +forward .* rank 5 +8$", first)
    excess = [float(line.split()[-4]) for line in lines[lines.index(first) : -1]]
    assert excess == sorted(excess, reverse=True)


def test_an_excess_of_zero_names_no_rank() -> None:
    lines = [line for line in skew_block(report_of(dp=3, noise=0.0)) if line.startswith(("iteration", "other"))]
    assert [line.split()[-2] for line in lines] == ["-", "-"]


def test_nobody_is_named_where_too_few_steps_were_timed() -> None:
    lines = list(skew_block(report_of(dp=4, steps=2, slow_rank=1)))
    assert not any("rank 1" in line for line in lines)


def test_one_rank_has_no_skew() -> None:
    assert list(skew_block(report_of(dp=1))) == []


def test_layers_are_listed_with_their_balance_the_worst_first() -> None:
    report = report_of(dp=2, ep=2, layers=4, hot=4.0)
    first, second = (replace(layer, ep_cost_ns=cost) for layer, cost in zip(report.experts, (1e6, 2e6), strict=True))
    layers = replace(first, dead=(1, 3), drop_rate=0.25), second
    found = summarise(layers, None)
    lines = [line.split() for line in experts_block(replace(report, experts=layers, expert_summary=found))]
    head, *rows = lines[next(place for place, line in enumerate(lines) if line[:1] == ["layer"]) :]
    assert head == ["layer", "ep", "max/mean", "cost", "max/mean", "hottest", "dead", "dropped"]
    balance = [f"{layer.max_over_mean:.2f}" for layer in layers]
    assert rows[0][-4:] == [balance[1], "1", "none", "n/a"]
    assert rows[1][-5:] == [balance[0], "1", "1,", "3", "25%"]
    assert [row[0] for row in rows[:2]] == ["blocks.3.moe", "blocks.1.moe"]


def test_of_many_layers_the_worst_are_listed() -> None:
    report = report_of(dp=2, layers=60, experts=2)
    lines = list(experts_block(report))
    assert "(6 layers are better; summary.json and tables/experts.csv have all)" in lines
    assert sum(line.startswith("blocks.") for line in lines) == 24


def test_experts_without_a_timed_step_are_na() -> None:
    line = list(experts_block(report_of(dp=2, layers=2, steps=0, experts=16)))[-1]
    assert line.split()[1:] == ["n/a"] * 4


def test_no_skew_without_a_timed_step() -> None:
    assert list(skew_block(report_of(dp=4, steps=0))) == []


def test_a_dense_model_has_no_experts_block() -> None:
    assert list(experts_block(report_of(dp=2, experts=0))) == []


@pytest.mark.parametrize(
    ("phase", "place"),
    [
        ("forward", "forward of blocks.1.moe.router"),
        ("backward", "backward of blocks.1.moe.router"),
        ("data", "data wait"),
    ],
)
def test_verdict_names_the_slow_rank_phase_and_module(phase: str, place: str) -> None:
    words = verdict_text(report_of(**JOB, slow_phase=phase))
    assert re.match(
        rf"slowest: rank 5, {re.escape(place)}: (39|40)\.?\d* ms above the others of its cohort, "
        r"\d+% of an iteration, in 3 of 3 steps",
        words,
    )


def test_verdict_names_the_overloaded_expert() -> None:
    report = report_of(**JOB, hot=4.0)
    assert re.search(r"; largest overload: expert 1 of blocks\.[13]\.moe, 2\.\d\d x mean\.$", verdict_text(report))
    assert "overload" not in verdict_text(report_of(**JOB))


def test_where_nobody_stands_out_the_verdict_says_so_and_what_it_would_have_seen() -> None:
    report = report_of(dp=4)
    found = report.verdict.ranks
    assert found.floor_ns is not None and found.iteration_ns is not None
    assert found.floor_ns >= 0.05 * found.iteration_ns
    share = f"{found.floor_ns / found.iteration_ns:.0%}"
    assert verdict_text(report) == (
        f"no rank stands out by self times: one that loses {duration(found.floor_ns)} ({share} of an iteration) or "
        "more in one module or phase would have been seen."
    )


def test_several_slow_ranks_are_named_with_their_places() -> None:
    report = report_of(dp=8, slow_rank=5)
    (one,) = report.verdict.ranks.named
    other, third = replace(one, rank=2, excess_ns=one.excess_ns / 2), replace(one, rank=7, subject="data", phase="data")
    found = replace(report.verdict.ranks, named=(one, third, other))
    words = verdict_text(replace(report, verdict=replace(report.verdict, ranks=found)))
    assert words.startswith(
        "slow: ranks 2, 5, forward of blocks.1.moe.router: 20 ms to 40 ms above the others of their"
    )
    assert words.endswith(
        "; rank 7, data wait: 40 ms above the others of its cohort, 53% of an iteration, in 3 of 3 steps "
        "(by self times)."
    )


def test_of_two_ranks_the_verdict_says_that_there_are_only_two() -> None:
    report = report_of(dp=8, slow_rank=5)
    (one,) = report.verdict.ranks.named
    found = replace(report.verdict.ranks, named=(replace(one, cohort=2),))
    assert "in 3 of 3 steps (the slower of two ranks that do the same work)" in verdict_text(
        replace(report, verdict=replace(report.verdict, ranks=found))
    )


def verdict_with(report: Report, **changed: object) -> str:
    found = replace(report.verdict.ranks, why_self_times="", **changed)  # type: ignore[arg-type]
    return verdict_text(replace(report, verdict=replace(report.verdict, ranks=found)))


def test_the_cause_and_the_cost_follow_the_evidence() -> None:
    report = report_of(dp=8, slow_rank=5)
    words = verdict_with(
        report,
        cause="more work",
        evidence="2.00 times the samples of the others",
        iteration_ns=1.4e9,
        cost_ns=0.19e9,
        iteration_without_ns=1.21e9,
    )
    assert words.endswith(
        "in 3 of 3 steps; more work: 2.00 times the samples of the others; without it an iteration would take 1.21 s "
        "instead of 1.4 s."
    )


def test_a_rank_may_be_slow_and_cost_nothing() -> None:
    report = report_of(dp=8, slow_rank=5)
    found = with_cost(report.verdict.ranks, iteration_ns=1.4e9, cost_ns=0.01e9)
    assert found.others_are_late and not with_cost(found, iteration_ns=1.4e9, cost_ns=0.02e9).others_are_late
    words = verdict_text(replace(report, verdict=replace(report.verdict, ranks=replace(found, why_self_times=""))))
    assert words.endswith("in 3 of 3 steps; without it an iteration would hardly be shorter: others are late, too.")


def test_what_is_slow_instead_of_a_rank_comes_first() -> None:
    words = verdict_with(report_of(dp=8), cause="slow link", evidence="the collectives of ranks 2-3 take longer")
    assert words == "slow link: the collectives of ranks 2-3 take longer; no rank stands out by itself."


def test_the_detection_floor_of_a_machine_is_given_where_waits_are_known() -> None:
    words = verdict_with(report_of(dp=8), iteration_ns=200e6, floor_ns=10e6, floor_throughout_ns=30e6)
    assert words == (
        "no rank stands out: one that loses 10 ms (5% of an iteration) or more in one module or phase, or 30 ms (15% of"
        " an iteration) throughout would have been seen."
    )


def test_where_ranks_cannot_be_compared_the_verdict_says_why() -> None:
    assert verdict_text(report_of(dp=4, steps=2, slow_rank=1)) == (
        "no more than 2 timed steps were recorded: it takes 3 to tell a slow rank from chance, so nobody is named."
    )
    assert verdict_text(report_of(dp=1)) == ""
