"""The tables hold what the report holds, one row for each thing, with the times of all modules on all ranks."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from support.reports import collectives_of, report_of
from support.synthetic import Job, rank_records

from distprof.merge.export.tables import NAMES, all_tables
from distprof.merge.report import Report
from distprof.records import Step, Tree

JOB: dict[str, Any] = {"dp": 4, "tp": 2, "ep": 2, "slow_rank": 5, "hot": 3.0}
UNITS = ("_ns", "_bytes", "_macs", "_flops", "_tokens", "_over_mean", "_over_median", "_per_second", "_params")


def table(name: str, report: Report | None = None) -> list[dict[str, Any]]:
    return all_tables(report or report_of(**JOB))[name].rows()


@pytest.mark.parametrize("job", [JOB, {"dp": 1}, {"dp": 2, "counted": False, "mode": "forward"}, {"dp": 3, "steps": 0}])
def test_all_columns_have_one_value_for_each_row(job: dict[str, Any]) -> None:
    tables = all_tables(report_of(**job))
    assert tuple(tables) == NAMES
    for one in tables.values():
        assert {len(column.values) for column in one.columns} == {len(one)}
        assert len(set(one.names)) == len(one.names)
        assert all(column.text for column in one.columns) and one.text


def test_a_time_has_its_unit_in_its_name() -> None:
    report = report_of(**JOB)
    times = {key for row in report.ranks for key in row.phases_ns}
    assert {f"{phase}_ns" for phase in times} <= set(all_tables(report)["ranks"].names)


def test_ranks_have_their_coordinates_times_and_verdict() -> None:
    report, rows = report_of(**JOB), table("ranks")
    assert [row["rank"] for row in rows] == list(range(8))
    assert [(row["dp"], row["tp"], row["ep"]) for row in rows][5] == (2, 1, 0)
    assert [row["iteration_ns"] for row in rows] == [one.iteration_ns for one in report.ranks]
    assert [row["forward_ns"] for row in rows] == [one.phases_ns["forward"] for one in report.ranks]
    assert [row["rank"] for row in rows if row["named"]] == [5]
    assert {row["wait_ns"] for row in rows} == {None}


def test_ranks_have_their_waits() -> None:
    rows = table("ranks", replace(report_of(**JOB), collectives=collectives_of(8)))
    assert [(row["wait_ns"], row["last_arrivals"]) for row in rows][:2] == [(25e6, 0), (0.5e6, 9)]


def test_steps_are_those_that_were_recorded() -> None:
    recorded = {
        (rank, record.iteration, record.duration_ns, None)
        for rank in range(8)
        for record in rank_records(Job(**JOB), rank)
        if isinstance(record, Step)
    }
    assert {tuple(row.values()) for row in table("steps")} == recorded


def test_module_times_are_medians_of_the_steps_of_every_module_on_every_rank() -> None:
    report = report_of(**JOB)
    found = {(row["rank"], row["module"]): row["forward_self_ns"] for row in table("module_times")}
    labels = {(row.name, row.class_name): row.label for row in report.modules}
    modules = 0
    for rank in range(8):
        records = rank_records(Job(**JOB), rank)
        names = [(row.name, row.class_name) for record in records if isinstance(record, Tree) for row in record.rows]
        steps = [record for record in records if isinstance(record, Step)]
        for place, name in enumerate(names):
            own = [int(step.forward_ns[place]) for step in steps]
            if any(int(step.calls[place]) for step in steps):
                assert found[rank, labels[name]] == median(own)
                modules += 1
    assert modules > 8 * 16  # more than the columns of the skew map


def test_modules_name_their_parents() -> None:
    rows = {row["module"]: row for row in table("modules")}
    assert rows["blocks.1.moe.router"]["parent"] == "blocks.1.moe"
    assert [row["module"] for row in rows.values() if row["parent"] is None] == [report_of(**JOB).modules[0].label]


def test_experts_have_their_ranks_and_loads() -> None:
    layer, rows = report_of(**JOB).experts[0], table("experts")
    own = [row for row in rows if row["layer"] == layer.name]
    assert [row["expert"] for row in own] == list(range(layer.num_experts))
    assert tuple(row["tokens"] for row in own) == layer.tokens
    assert [row["ranks"] for row in own] == [" ".join(map(str, hosts)) for hosts in layer.expert_ranks]
    assert max(row["tokens_over_mean"] for row in own) == pytest.approx(layer.max_over_mean)


def test_moe_layers_have_all_measures_of_balance() -> None:
    layer, row = report_of(**JOB).experts[0], table("moe_layers")[0]
    assert layer.load is not None and layer.ep_load is not None
    for prefix, load in (("", layer.load), ("ep_", layer.ep_load)):
        assert {f"{prefix}{name}": value for name, value in vars(load).items()}.items() <= row.items()
    told = layer.ep_cost_ns, layer.load_cost_ns, len(layer.dead), layer.drop_rate
    assert (row["cost_ns"], row["load_cost_ns"], row["dead"], row["drop_rate"]) == told


def test_memory_is_beside_that_of_the_cohort() -> None:
    rows = [row for row in table("memory") if row["what"] == "parameters"]
    report = report_of(**JOB)
    assert [(row["rank"], row["bytes"]) for row in rows] == [(row.rank, row.parameter_bytes) for row in report.ranks]
    middle = median(row.parameter_bytes for row in report.ranks if row.cohort == report.ranks[0].cohort)  # type: ignore[type-var]
    assert rows[0]["cohort_median_bytes"] == middle


def test_skew_and_collectives_have_a_row_for_each_of_the_report() -> None:
    report = replace(report_of(**JOB), collectives=collectives_of(8))
    assert len(table("skew", report)) == len(report.skew.phases) + len(report.skew.modules)
    assert [row["bytes"] for row in table("collectives", report)] == [4 << 20, 0]


def test_moe_layers_have_the_measures_of_each_step() -> None:
    """Expert 1 of 8, on ep rank 0 of 2, has three times the tokens of each other one in each of three steps."""
    report = report_of(dp=2, ep=2, layers=4, experts=8, steps=3, hot=3, noise=0)
    rows = table("moe_steps", report)
    assert len(rows) == 2 * 3
    first = rows[0]
    layer = report.experts[0]
    assert layer.load is not None and layer.ep_load is not None
    assert (first["layer"], first["hottest"], first["ep_hottest"], first["dead"]) == (layer.name, 1, 0, 0)
    for name in ("max_violation", "cv", "entropy", "gini"):
        assert first[name] == pytest.approx(getattr(layer.load, name))
        assert first[f"ep_{name}"] == pytest.approx(getattr(layer.ep_load, name))
    assert first["max_violation"] == pytest.approx(3 * 8 / 10 - 1)
    assert first["ep_gini"] == pytest.approx((600 - 400) / (2 * 2 * 500)), "of the loads 600 and 400"
