"""``distprof diff``: two runs side by side, as text, as JSON and as an exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.synthetic import write_run

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
JOB: dict[str, Any] = {"dp": 4, "steps": 12, "noise": 0.01}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "before", **JOB)
    write_run(folder / "same", **JOB, seed=1)
    write_run(folder / "after", **JOB, seed=2, slow_rank=2, slow_ms=30.0)
    write_run(folder / "forward", dp=2, mode="forward", counted=False)
    return folder


def test_equal_runs_pass_and_a_slower_one_fails(here: Cli, runs: Path) -> None:
    same = here("diff", runs / "before", runs / "same", "--fail-over", "5%")
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout.startswith("no change beyond the noise: iteration, median ")
    slower = here("diff", runs / "before", runs / "after", "--fail-over", "5%")
    assert slower.returncode == 1
    assert slower.stderr.startswith("distprof: the second run is worse by more than 5%: iteration, median, ")
    assert slower.stdout.startswith("the second run is slower: the median iteration takes ")
    assert here("diff", runs / "before", runs / "after").returncode == 0
    assert here("diff", runs / "before", runs / "after", "--fail-over", "500").returncode == 0
    assert here("diff", runs / "after", runs / "before", "--fail-over", "5").returncode == 0


def test_json_is_the_same_as_data(here: Cli, runs: Path) -> None:
    found = json.loads(here("diff", runs / "before", runs / "after", "--json").stdout)
    (iteration,) = [one for one in found["figures"] if one["name"] == "iteration, median"]
    assert (iteration["unit"], iteration["finding"], iteration["is_worse"]) == ("ns", "more", True)
    assert found["verdict"]["new_slow_ranks"] == [2]


def test_a_page_is_written_beside_the_text(here: Cli, runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "diff.html"
    ended = here("diff", runs / "before", runs / "after", "--html", page)
    assert (ended.returncode, ended.stderr) == (0, f"distprof: page of the comparison in {page}\n")
    assert ended.stdout.startswith("the second run is slower: ")
    assert "The second run is slower" in page.read_text(encoding="utf-8")
    failed = here("diff", runs / "before", runs / "after", "--html", tmp_path)
    assert failed.returncode == 1 and f"the page cannot be written to {tmp_path} (Is a directory)" in failed.stderr


def test_a_kept_summary_is_a_baseline(here: Cli, runs: Path, tmp_path: Path) -> None:
    here("merge", runs / "before", "--no-plots", "--out", tmp_path / "baseline")
    for baseline in (tmp_path / "baseline", tmp_path / "baseline" / "summary.json"):
        ended = here("diff", baseline, runs / "after", "--fail-over", "5%")
        assert ended.returncode == 1
        assert "modules are not compared: a report has no times step by step" in ended.stdout


def test_runs_that_cannot_be_compared_are_an_error_only_where_it_matters(here: Cli, runs: Path) -> None:
    assert here("diff", runs / "before", runs / "forward").returncode == 0
    ended = here("diff", runs / "before", runs / "forward", "--fail-over", "5%")
    assert ended.returncode == 2
    assert ended.stderr == (
        "distprof: the runs cannot be compared: an iteration is training in the first run and forward in the second\n"
    )


@pytest.mark.parametrize("text", ["x", "-1", "nan", "5%%", "inf"])
def test_a_limit_that_makes_no_sense_is_told(here: Cli, runs: Path, text: str) -> None:
    ended = here("diff", runs / "before", runs / "same", "--fail-over", text)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"distprof: fail-over is {text!r}: give a number of percent, such as 5%\n"


def test_repeated_runs_are_compared_as_one(here: Cli, runs: Path) -> None:
    for seed in (3, 4):
        write_run(runs / f"before{seed}", **JOB, seed=seed)
        write_run(runs / f"after{seed}", **JOB, seed=seed, slow_rank=2, slow_ms=30.0)
    again = [word for seed in (3, 4) for word in ("--again", runs / f"before{seed}", runs / f"after{seed}")]
    ended = here("diff", runs / "before", runs / "after", *again, "--fail-over", "5%")
    assert ended.returncode == 1
    assert ended.stdout.startswith("the second run is slower: the median iteration takes ")
    assert "\nfirst:  demo (3 runs)\nsecond: demo (3 runs)\n" in ended.stdout
    assert "note: the bounds are those of the spread over 3 runs of each" in ended.stdout


def test_a_repetition_that_was_started_in_another_way_is_refused(here: Cli, runs: Path) -> None:
    ended = here("diff", runs / "before", runs / "after", "--again", runs / "forward", runs / "after")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"distprof: {runs / 'forward'} is no further run of {runs / 'before'}: ranks differs, 2 instead of 4\n"
    )


def test_what_is_no_run_is_told(here: Cli, runs: Path) -> None:
    ended = here("diff", runs / "before", runs / "nowhere")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "nowhere does not exist" in ended.stderr
