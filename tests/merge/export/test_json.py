"""summary.json is the report, field by field."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from support.reports import report_of

from distprof.errors import DataError
from distprof.merge.export.json import from_json, to_json
from distprof.merge.report import NOT_IN_JSON, REPORT_SCHEMA, Report

JOBS = (
    {"dp": 4, "tp": 2, "ep": 2, "slow_rank": 5},
    {"dp": 1},
    {"dp": 2, "counted": False, "mode": "forward"},
)


@pytest.mark.parametrize("job", JOBS)
def test_a_report_can_be_read_back(job: dict[str, object]) -> None:
    report = report_of(**job)
    assert from_json(to_json(report), "it") == report


def test_schema_comes_first_then_fields_in_order() -> None:
    keys = list(json.loads(to_json(report_of(dp=2))))
    others = [field.name for field in fields(Report) if field.name != "schema" and NOT_IN_JSON not in field.metadata]
    assert keys == ["schema", *others]
    assert json.loads(to_json(report_of(dp=2)))["schema"] == REPORT_SCHEMA


def test_integers_stay_integers() -> None:
    values = json.loads(to_json(report_of(dp=2)))
    assert isinstance(values["summary"]["params_exact"], int)
    assert all(isinstance(tokens, int) for layer in values["experts"] for tokens in layer["tokens"])


def test_counts_are_integers_and_means_may_not_be() -> None:
    values = json.loads(to_json(report_of(dp=2, tp=2, ep=2)))
    assert all(isinstance(row["params"], int) and isinstance(row["calls"], int) for row in values["modules"])
    assert all(isinstance(row["fwd_macs"], int) for row in values["ranks"])
    assert isinstance(values["summary"]["params_per_rank"]["max"], int)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "it is no report: merge the run again"),
        ("{", "it is no report that this version of distprof reads (JSONDecodeError): merge the run again"),
        ('{"schema": "distprof.report/1"}', "it is of schema 'distprof.report/1', this version reads"),
        (f'{{"schema": "{REPORT_SCHEMA}", "run": {{"ranks": 1}}}}', "reads (TypeError): merge the run again"),
        (f'{{"schema": "{REPORT_SCHEMA}", "of_tomorrow": 1}}', "reads (KeyError): merge the run again"),
    ],
)
def test_what_is_no_report_is_told_in_one_sentence(text: str, told: str) -> None:
    with pytest.raises(DataError) as error:
        from_json(text, "it")
    assert told in str(error.value)


def test_incomplete_ranks_are_read_back_as_numbers() -> None:
    report = report_of(dp=2)
    report = replace(report, run=replace(report.run, incomplete={1: "killed", 10: "killed"}))
    assert from_json(to_json(report), "it").run.incomplete == {1: "killed", 10: "killed"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    report = report_of(dp=2)
    broken = replace(report, summary=replace(report.summary, samples_per_second=number))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(broken)


def test_each_row_of_a_table_has_its_own_line() -> None:
    report = report_of(dp=4, tp=2)
    lines = to_json(report).splitlines()
    assert sum(line.startswith('  {"rank":') for line in lines) == len(report.ranks)
    assert sum(line.startswith('  {"label":') for line in lines) == len(report.modules)
