"""``distprof.load()``: the report of a run in Python, from shards or from ``summary.json``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.processes import output_of
from support.reports import report_of
from support.synthetic import write_run

import distprof
from distprof.errors import DataError, UsageError
from distprof.merge.export.json import to_json
from distprof.merge.report import ModuleTimes
from distprof.merge.text import render_first_page

JOB: dict[str, Any] = {"dp": 4, "tp": 2, "ep": 2, "slow_rank": 5, "hot": 3.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", **JOB)


def summary_in(folder: Path) -> Path:
    folder.mkdir()
    (folder / "summary.json").write_text(to_json(report_of(**JOB)))
    return folder / "summary.json"


def test_the_report_of_a_run_is_that_of_its_shards(run: Path) -> None:
    report = distprof.load(run).report
    assert replace(report, run=report_of(**JOB).run) == report_of(**JOB)
    assert report.module_times.forward_ns.shape == (len(report.modules), 8)
    assert not (run / "report").exists()  # nothing is written
    assert distprof.load(run / "shards").report == distprof.load(str(run)).report


@pytest.mark.parametrize("part", ["", "summary.json"])
def test_a_report_is_read_where_there_are_no_shards(tmp_path: Path, part: str) -> None:
    loaded = distprof.load(summary_in(tmp_path / "report").parent / part)
    assert loaded.report == report_of(**JOB)
    assert loaded.table("ranks").rows() == distprof.RunReport(report_of(**JOB), "it").table("ranks").rows()
    with pytest.raises(DataError, match=r"summary.json does not have the times of all modules on all ranks: load the"):
        loaded.table("module_times")
    with pytest.raises(UsageError, match="is a report already"):
        distprof.load(tmp_path / "report", window=0)


def test_an_older_report_beside_the_shards_is_not_read(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run / "shards", tmp_path / "copied")
    (copied / "summary.json").write_text("of another version")
    assert len(distprof.load(copied).report.ranks) == 8


def test_tables_are_data_frames(run: Path) -> None:
    pandas = pytest.importorskip("pandas")
    loaded = distprof.load(run)
    for name in ("ranks", "steps", "modules", "module_times", "experts", "skew", "collectives", "memory"):
        frame = getattr(loaded, name)
        assert isinstance(frame, pandas.DataFrame)
        assert len(frame) == len(loaded.table(name))
    own = loaded.module_times[loaded.module_times.module == "blocks.1.moe.router"]
    assert own.loc[own.forward_self_ns.idxmax(), "rank"] == 5
    assert loaded.ranks.loc[loaded.ranks.named, "rank"].tolist() == [5]


def test_without_pandas_the_user_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    loaded = distprof.load(run)
    with pytest.raises(UsageError, match=r"pandas: pip install 'distprof\[pandas\]', or use table\('ranks'\)"):
        _ = loaded.ranks
    assert loaded.table("ranks").rows()[5]["named"] is True


def test_an_unknown_table_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no table 'rank': there are ranks, steps"):
        distprof.RunReport(report_of(**JOB), "it").table("rank")


def test_it_shows_its_first_page() -> None:
    loaded = distprof.RunReport(report_of(**JOB), "it")
    assert str(loaded) == render_first_page(report_of(**JOB))
    assert repr(loaded).startswith("<distprof.RunReport synthetic-1: 8 of 8 ranks, ")
    assert "slowest: rank 5" in loaded._repr_html_()


def test_names_are_escaped_in_a_notebook() -> None:
    report = report_of(**JOB)
    hostile = replace(report, run=replace(report.run, name="<script>alert(1)</script>"), module_times=ModuleTimes())
    assert "<script>" not in distprof.RunReport(hostile, "it")._repr_html_()


def test_what_is_no_run_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: give the folder"):
        distprof.load(tmp_path / "it")
    (tmp_path / "it").write_text("x")
    with pytest.raises(DataError, match="it is no report that this version of distprof reads"):
        distprof.load(tmp_path / "it")


def test_the_peak_may_be_given(run: Path) -> None:
    assert distprof.load(run).report.utilization.mfu is None
    one, two = (distprof.load(run, peak_tflops=peak).report.utilization.mfu for peak in (1.0, 2.0))
    assert one is not None and two is not None
    assert one.job == pytest.approx(2 * two.job)


def test_loading_imports_no_torch(run: Path, tmp_path: Path, clean_env: dict[str, str]) -> None:
    code = f"import sys, distprof; distprof.load({str(run)!r}).table('module_times'); sys.exit('torch' in sys.modules)"
    output_of("-c", code, cwd=tmp_path, env=clean_env)
