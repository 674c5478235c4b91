"""Tests of ``distprof merge``: the report of a run folder, fast and reproducible, or one sentence about the error."""

from __future__ import annotations

import gc
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.processes import output_of, python
from support.synthetic import write_run

from distprof.commands.merge import without_collection
from distprof.errors import DataError
from distprof.merge import plots
from distprof.merge.export.table_files import csv_names
from distprof.merge.plots import FORMATS, NAMES
from distprof.records import Header, Record
from distprof.run_folder import MANIFEST, Manifest, RunFolder

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

#: The plots of what synthetic jobs of one host do not have: waits, stages, long data waits; and of jobs of one rank.
NOT_DRAWN = (
    *("collectives", "arrival_lag", "module_map", "timeline", "rank_grid", "hosts", "pipeline", "data_wait"),
    *("expert_times", "expert_traffic", "expert_drops"),
)
DEMO: dict[str, Any] = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "experts": 8, "steps": 10, "slow_rank": 5, "hot": 3.0}


#: The files of a report without plots.
PLAIN = {"summary.txt", "summary.json", "report.html", *csv_names()}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn_plots() -> set[str]:
    """Returns the files of the plots of a synthetic job of several ranks."""
    return {f"plots/{name}.{kind}" for name in NAMES if name not in NOT_DRAWN for kind in FORMATS}


def test_folders_of_several_nodes_and_a_run_at_a_url(here: Cli, tmp_path: Path) -> None:
    first, second = (
        write_run(tmp_path / node / "x", dp=4, missing=missing) for node, missing in (("a", (2, 3)), ("b", (0, 1)))
    )
    ended = here("merge", first, second, "--no-plots", "--no-page")
    assert ended.returncode == 0 and "4 of 4 ranks recorded" in ended.stdout
    assert ended.stderr == f"distprof: report in {first}/report\n" and not (second / "report").exists()
    for folder in (first, second):
        assert here("upload", folder, f"file://{tmp_path}/there").returncode == 0
    ended = here("merge", f"file://{tmp_path}/there/x", "--no-plots", "--no-page")
    assert ended.returncode == 0 and "4 of 4 ranks recorded" in ended.stdout
    assert "distprof: the run is copied to runs/x\ndistprof: report in runs/x/report\n" in ended.stderr
    nothing = here("merge", f"file://{tmp_path}/nowhere")
    assert (nothing.returncode, nothing.stdout) == (1, "") and "is no run: it has no shards" in nothing.stderr


@pytest.fixture(scope="module")
def demo(
    tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Returns a run that is merged, with plots, and what its merge printed."""
    run = write_run(tmp_path_factory.mktemp("demo") / "run", **DEMO)
    return run, python("-m", "distprof", "merge", run, cwd=run.parent, env=clean_env)


def test_a_report_is_written_and_printed(
    demo: tuple[Path, subprocess.CompletedProcess[str]], here: Cli, tmp_path: Path
) -> None:
    run, ended = demo
    assert ended.returncode == 0, ended.stderr
    report = everything(run / "report")
    assert report.keys() == PLAIN | drawn_plots()
    assert ended.stdout and report["summary.txt"].decode().startswith(ended.stdout)
    whole = here("merge", run, "--no-plots", "--full", "--out", tmp_path / "other")
    assert whole.stdout.encode() == report["summary.txt"]
    assert ended.stderr == f"distprof: report in {run}/report, plots in {run}/report/plots\n"
    assert json.loads(report["summary.json"])["run"]["world_size"] == 8
    assert "slowest: rank 5, forward of blocks.1.moe.router: " in ended.stdout


def test_twice_over_gives_the_same_bytes_wherever_the_run_lies(
    demo: tuple[Path, subprocess.CompletedProcess[str]], cli: Cli, tmp_path: Path
) -> None:
    """Also whichever backend of matplotlib a notebook has set, and whatever style its user has chosen."""
    first, plain = demo
    second = write_run(tmp_path / "b" / "other", **DEMO)
    (tmp_path / "style").write_text("font.size: 30\naxes.facecolor: black\n", encoding="utf-8")
    ended = cli("merge", second, env={"MPLBACKEND": "module://nonsense", "MATPLOTLIBRC": str(tmp_path / "style")})
    assert (ended.returncode, ended.stdout) == (0, plain.stdout)
    assert ended.stderr == plain.stderr.replace(str(first), str(second))
    once = everything(first / "report")
    assert everything(second / "report") == once and {name for name in once if name.startswith("plots/")}


def test_plots_of_an_earlier_merge_do_not_outlive_it(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", dp=2)
    with monkeypatch.context() as patch:
        patch.setattr(plots, "NAMES", ("skew_map",))  # one is enough
        here("merge", run)
    assert (run / "report" / "plots" / "skew_map.png").exists()
    (run / "report" / "plots" / "mine.png").write_bytes(b"the user's")
    here("merge", run, "--no-plots")
    assert everything(run / "report").keys() == {*PLAIN, "plots/mine.png"}


def test_the_page_is_named_and_can_be_left_out(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    ended = here("merge", run, "--no-plots")
    assert ended.stdout.endswith("All of the report is in summary.txt (--full prints it) and in report.html.\n")
    assert (run / "report" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    ended = here("merge", run, "--no-plots", "--no-page")
    assert ended.stdout.endswith("All of the report is in summary.txt; --full prints it.\n")
    assert everything(run / "report").keys() == PLAIN - {"report.html"}, "that of an earlier merge is removed"


def test_without_a_matplotlib_that_works_there_is_a_report_still(cli: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    plain = cli("merge", run, "--no-plots")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "matplotlib.py").write_text("raise ImportError('libpng is missing')")
    ended = cli("merge", run, env={"PYTHONPATH": str(tmp_path / "broken")})
    assert (ended.returncode, ended.stdout) == (0, plain.stdout)
    names = ", ".join(NAMES)
    assert ended.stderr == (
        f"distprof: not drawn, matplotlib cannot: {names} (ImportError: libpng is missing)\n"
        f"distprof: report in {run}/report\n"
    )
    assert everything(run / "report").keys() == PLAIN


def test_a_table_of_too_many_rows_is_left_out_and_named(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", dp=2)
    here("merge", run, "--no-plots", "--no-page")
    monkeypatch.setattr("distprof.merge.export.tables.MOST_TEXT_ROWS", 10)
    ended = here("merge", run, "--no-plots", "--no-page")
    left = {"summary.txt", "summary.json", *csv_names()} - {"tables/module_times.csv"}
    assert everything(run / "report").keys() == left, "that of an earlier merge is removed"
    assert "distprof: tables/module_times.csv is left out, it has more than" in ended.stderr


def test_options_choose_what_is_shown(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    whole = here("merge", run, "--no-plots", "--full").stdout
    short = here("merge", run, "--full", "--no-plots", "--no-detailed", "--depth", 1, "--top", 1).stdout
    assert "Detailed Profile" in whole and "Detailed Profile" not in short
    assert "\ndepth 2:\n" in whole and "\ndepth 1:\n" in short and "\ndepth 2:\n" not in short
    assert "\nTop 1 modules in terms of" in short


def keep(run: Path, **shown: object) -> None:
    """Writes the run's options of reports, as a job with such a configuration does."""
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "shown": shown}))


def test_report_options_of_the_run_are_defaults(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    keep(run, depth=1, top=1, detailed=False, plots=False, colour="blue")
    kept = here("merge", run, "--full")
    assert "Detailed Profile" not in kept.stdout and "\nTop 1 modules" in kept.stdout
    assert "\ndepth 1:\n" in kept.stdout and "\ndepth 2:\n" not in kept.stdout
    assert everything(run / "report").keys() == PLAIN
    (tmp_path / "distprof.toml").write_text("top = 2\ndepth = 0\n")
    said = here("merge", run, "--full", "--depth", "-1", "--detailed", env={"DISTPROF_TOP": "4"})
    assert "Detailed Profile" in said.stdout and "\nTop 4 modules" in said.stdout and "\ndepth 2:\n" in said.stdout
    file = here("merge", run, "--full")
    assert "\nTop 2 modules" in file.stdout and "\ndepth 0:\n" in file.stdout and "\ndepth 1:\n" not in file.stdout


@pytest.mark.parametrize(("form", "beginning"), [("markdown", "**Run demo**"), ("latex", "\\begin{table}")])
def test_the_main_tables_are_printed_in_another_form(here: Cli, tmp_path: Path, form: str, beginning: str) -> None:
    run = write_run(tmp_path / "run", dp=2)
    ended = here("merge", run, "--no-plots", "--no-page", "--format", form)
    assert ended.returncode == 0 and ended.stdout.startswith(beginning)
    assert "ranks recorded" in (run / "report" / "summary.txt").read_text()


def test_misspelt_variables_are_named_and_the_report_is_made(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    ended = here("merge", run, "--full", "--no-plots", env={"DISTPROF_DETAIL": "0"})
    assert (ended.returncode, "Detailed Profile" in ended.stdout) == (0, True)
    assert ended.stderr.startswith("distprof: the environment has an unknown variable 'DISTPROF_DETAIL': did you mean ")


def test_a_run_that_wants_nonsense_is_told_in_one_sentence(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    keep(run, top=0)
    ended = here("merge", run)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"distprof: 'top' in {run}/run.json is 0: give a whole number, 1 or more\n"


def test_the_text_can_go_to_a_file_instead(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    (tmp_path / "ds.json").write_text('{"flops_profiler": {"output_file": "prof/out.txt"}}')
    ended = here("merge", run, "--no-plots", "--config", "ds.json")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == f"distprof: text of the report in prof/out.txt\ndistprof: report in {run}/report\n"
    assert (tmp_path / "prof" / "out.txt").read_text() == (run / "report" / "summary.txt").read_text()
    back = here("merge", run, "--no-plots", "--config", "ds.json", "--output-file", "-", "--full")
    assert back.stdout == (run / "report" / "summary.txt").read_text()


def test_a_run_from_elsewhere_never_says_where_to_write(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    keep(run, output_file=str(mine), out=str(tmp_path))
    assert "2 of 2 ranks recorded" in here("merge", run, "--no-plots").stdout
    assert mine.read_text() == "mine"


def test_a_file_that_cannot_be_written_is_told_in_one_sentence(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    ended = here("merge", run, "--no-plots", "--output-file", run)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"\ndistprof: the report cannot be written to {run} (Is a directory): choose another" in ended.stderr
    assert (run / "report" / "summary.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--top", "0"], "top is 0: give a whole number, 1 or more"),
        (["--depth", "-2"], "depth is -2: give a whole number, -1 or more"),
        (["--output-file", ""], "output_file is '': give a text that is not empty"),
        (["--config", "no.toml"], "the configuration no.toml cannot be read: No such file or directory"),
    ],
)
def test_an_option_that_makes_no_sense_is_told_in_one_sentence(here: Cli, arguments: list[str], sentence: str) -> None:
    ended = here("merge", "run", *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"distprof: {sentence}\n")


def test_the_report_can_go_elsewhere(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    ended = here("merge", run, "--no-plots", "--out", "elsewhere")
    assert ended.stderr == "distprof: report in elsewhere\n"
    assert everything(tmp_path / "elsewhere").keys() == PLAIN
    assert not (run / "report").exists()


def test_a_run_with_missing_ranks_is_merged_and_says_so(here: Cli, tmp_path: Path) -> None:
    ended = here("merge", write_run(tmp_path / "run", dp=4, missing=[2]), "--no-plots")
    assert ended.returncode == 0
    assert "3 of 4 ranks recorded, " in ended.stdout and "note: missing: rank 2\n" in ended.stdout


def test_shards_copied_together_are_a_run(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    together = tmp_path / "together"
    together.mkdir()
    for shard in (run / "shards").iterdir():
        shard.rename(together / shard.name)
    assert "\n2 of 2 ranks recorded, " in here("merge", together, "--no-plots").stdout


def test_report_of_a_rank_without_model(here: Cli, tmp_path: Path) -> None:
    def only_the_header(_: int, records: list[Record]) -> list[Record]:
        return records[:2]

    ended = here("merge", write_run(tmp_path / "run", dp=2, bend=only_the_header), "--full")
    assert ended.returncode == 0, ended.stderr
    assert "\nfwd latency:" in ended.stdout
    assert everything(tmp_path / "run" / "report").keys() == PLAIN


@pytest.mark.parametrize("steps", [0, 1])
def test_a_job_that_ended_early_is_merged(here: Cli, tmp_path: Path, steps: int) -> None:
    ended = here("merge", write_run(tmp_path / "run", dp=3, steps=steps))
    assert ended.returncode == 0, ended.stderr
    assert "3 of 3 ranks recorded, " in ended.stdout


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file, not a run's folder"),
        (lambda path: path.mkdir(), "is no run"),
    ],
)
def test_what_is_no_run_is_told_in_one_sentence(
    here: Cli, tmp_path: Path, make: Callable[[Path], object], sentence: str
) -> None:
    make(tmp_path / "it")
    ended = here("merge", "it")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("distprof: it ") and sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    (run / "report").write_text("in the way")
    ended = here("merge", run, "--no-plots")
    assert ended.returncode == 1
    assert "ranks recorded" in ended.stdout  # it costs nothing, and may be the only result
    assert ended.stderr.startswith(f"distprof: the report cannot be written to {run}/report (Not a directory): choose")
    assert ended.stderr.count("\n") == 1


def write_manifest(run: Path) -> Path:
    RunFolder(run).write_manifest(Manifest("r", run.name, ("distprof", "run"), 2, 0))
    return run / MANIFEST


def test_the_newest_run_is_merged_where_none_is_given(here: Cli, tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "older", "oldest")):
        manifest = write_run(tmp_path / "jobs" / name, dp=2) / "run.json"
        manifest.write_text(
            json.dumps({"run_id": "r", "name": name, "command": [], "world_size": 2, "started_wall_ns": 0})
        )
        os.utime(manifest, (1e9 - age, 1e9 - age))
    ended = here("merge", "--no-plots", env={"DISTPROF_OUT": "jobs"})
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[0] == "distprof: reads jobs/newest, the newest run"
    assert (tmp_path / "jobs" / "newest" / "report" / "summary.txt").is_file()


def test_no_run_is_given_and_there_is_none(here: Cli) -> None:
    ended = here("merge")
    told = "distprof: runs holds no run: give the folder that 'distprof run' named at its end\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", told)


def test_the_shards_of_a_run_mean_the_run(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    write_manifest(run)
    here("merge", run, "--no-plots")
    report = everything(run / "report")
    assert here("merge", run / "shards", "--no-plots").stderr == f"distprof: report in {run}/report\n"
    assert everything(run / "report") == report


@pytest.mark.parametrize("arguments", [["run", "--top", "x"], ["run", "--nonsense"]])
def test_a_wrong_call_is_a_usage_error(here: Cli, arguments: list[str]) -> None:
    ended = here("merge", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("distprof: ")
    assert ended.stderr.endswith(" ('distprof merge --help' explains it)\n")
    assert ended.stderr.count("\n") == 1


def test_help_has_an_example(here: Cli) -> None:
    assert "\n    distprof merge runs/" in here("merge", "--help").stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, clean_env: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", **DEMO)
    piped = f"set -o pipefail; {sys.executable} -m distprof merge {run} --no-plots | head -1"
    ended = subprocess.run(
        ["bash", "-c", piped], cwd=tmp_path, env=clean_env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == f"distprof: report in {run}/report\n"


def on_a_terminal(command: list[str], env: dict[str, str], cwd: Path) -> str:
    """Returns what ``command`` writes to a terminal."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(command, cwd=cwd, env=env, stdin=terminal, stdout=terminal, stderr=terminal):
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(controller, 65536):
                shown += piece
        except OSError:  # the last process on the terminal has ended
            pass
    os.close(controller)
    return shown.decode()


def test_colour_is_for_terminals_that_want_it(tmp_path: Path, clean_env: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", **DEMO)
    command = [sys.executable, "-m", "distprof", "merge", str(run), "--no-plots"]
    env = {**clean_env, "TERM": "xterm"}
    env.pop("NO_COLOR", None)
    assert "\x1b[1;31mslowest: rank 5" in on_a_terminal(command, env, tmp_path)
    assert not re.search(r"\x1b\[[\d;]*m", on_a_terminal(command, {**env, "NO_COLOR": "1"}, tmp_path))
    assert b"\x1b" not in (run / "report" / "summary.txt").read_bytes()


def test_any_encoding_will_do(cli: Cli, tmp_path: Path) -> None:
    def far_away(_: int, records: list[Record]) -> list[Record]:
        assert isinstance(records[0], Header)
        return [replace(records[0], host="höst"), *records[1:]]

    ended = cli(
        "merge", write_run(tmp_path / "run", dp=2, bend=far_away), "--no-plots", env={"PYTHONIOENCODING": "ascii"}
    )
    assert ended.returncode == 0, ended.stderr
    assert "h\\xf6st" in ended.stdout


#: Modules of which each takes a hundredth of the time of merging a small run, and more.
NOT_FOR_TEXT = {"numpy.ma", "concurrent.futures", "logging", "socket", "tomllib", "tomli", "jinja2"}


@pytest.mark.parametrize(
    ("options", "heavy"),
    [
        (["--no-plots", "--no-page"], {"torch", "matplotlib", *NOT_FOR_TEXT}),
        (["--no-plots"], {"torch", "matplotlib", "numpy.ma"}),
        ([], {"torch", "matplotlib.pyplot"}),
    ],
)
def test_merging_loads_no_torch_and_matplotlib_only_to_draw(
    options: list[str], heavy: set[str], tmp_path: Path, clean_env: dict[str, str]
) -> None:
    """Of one plot, which this process draws where there is one processor."""
    run = write_run(tmp_path / "run", dp=2)
    code = (
        "import sys; from distprof.commands.merge import command; from distprof.merge import plots\n"
        "plots.NAMES = plots.NAMES[:1]\n"
        f"command({[str(run), *options]!r}, standalone_mode=False)\n"
        f"found = {heavy!r} & set(sys.modules)\n"
        "sys.exit(f'loaded: {found}' if found else 0)"
    )
    output_of("-c", code, cwd=tmp_path, env=clean_env)


def test_garbage_is_collected_again_after_what_fails() -> None:
    with pytest.raises(DataError), without_collection():
        assert not gc.isenabled()
        raise DataError("a run that cannot be read")
    assert gc.isenabled()
