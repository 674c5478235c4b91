"""Plots drawn in several processes: the same files as in one process, also if processes fail."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

import pytest
from support.reports import report_of

from distprof.merge import plots
from distprof.merge.plots import parallel
from distprof.merge.plots.parallel import draw_all
from distprof.merge.report import Report

pytestmark = pytest.mark.slow

#: Some plots are enough here; one of them has no data.
SOME = ("iteration_by_rank", "hosts", "skew_map", "step_spread")


@pytest.fixture(autouse=True)
def _some_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "NAMES", SOME)


@pytest.fixture(scope="module")
def report() -> Report:
    return report_of(dp=4, ep=2, layers=2)


@pytest.fixture(scope="module")
def one_by_one(report: Report) -> dict[str, bytes]:
    return {file: content for name in SOME for file, content in plots.draw(name, report).items()}


@pytest.mark.parametrize("processors", [1, 2, 64])
def test_the_same_files_in_the_same_order(
    processors: int, report: Report, one_by_one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "usable_processors", lambda: processors)
    files, problems = draw_all(report)
    assert (list(files.items()), problems) == (list(one_by_one.items()), [])


def test_other_processes_draw(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "usable_processors", lambda: 2)
    monkeypatch.setattr(plots, "draw", lambda name, _: {name: str(os.getpid()).encode()})
    drew, _ = draw_all(report)
    assert list(drew) == list(SOME)
    assert str(os.getpid()).encode() not in drew.values()


def test_all_plots_are_drawn_if_a_process_is_killed(
    report: Report, one_by_one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, draw = os.getpid(), plots.draw

    def killed(name: str, own: Report) -> dict[str, bytes]:
        if os.getpid() != here and name == "skew_map":
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(name, own)

    monkeypatch.setattr(parallel, "usable_processors", lambda: 2)
    monkeypatch.setattr(plots, "draw", killed)
    assert draw_all(report) == (one_by_one, [])


@pytest.mark.parametrize(
    "why", [BlockingIOError("Resource temporarily unavailable"), NotImplementedError("no semaphores here")]
)
def test_plots_are_drawn_without_other_processes(
    why: Exception, report: Report, one_by_one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any, **__: Any) -> NoReturn:
        raise why

    monkeypatch.setattr(parallel, "usable_processors", lambda: 2)
    monkeypatch.setattr(os, "fork", none_left)
    assert draw_all(report) == (one_by_one, [])


@pytest.mark.parametrize("processors", [1, 2])
def test_a_failing_plot_affects_no_other(
    processors: int, report: Report, one_by_one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = plots.draw

    def broken(name: str, own: Report) -> dict[str, bytes]:
        if name in ("skew_map", "step_spread"):
            raise ValueError("no such font")
        return draw(name, own)

    monkeypatch.setattr(parallel, "usable_processors", lambda: processors)
    monkeypatch.setattr(plots, "draw", broken)
    files, problems = draw_all(report)
    assert files.items() == {(name, it) for name, it in one_by_one.items() if not name.startswith(("skew_", "step_"))}
    assert problems == ["not drawn, matplotlib cannot: skew_map, step_spread (ValueError: no such font)"]
