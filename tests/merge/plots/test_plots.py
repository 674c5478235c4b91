"""Every plot shows the numbers of the JSON for any number of ranks, and the same report gives the same bytes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from support.page.many_ranks import grown
from support.reports import collectives_of, report_of, with_findings_on_experts
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel

from distprof.merge import plots
from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.plots import (
    arrival_lag,
    collectives,
    iteration_by_rank,
    skew_map,
    step_spread,
    style,
)
from distprof.merge.plots.experts import expert_load
from distprof.merge.report import Report
from distprof.records import PHASES

JOB = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "slow_rank": 5, "hot": 3.0}
MODULES = (iteration_by_rank, skew_map, step_spread, expert_load, collectives, arrival_lag)


def values_of(report: Report) -> Any:
    return json.loads(to_json(report))


def drawn_by(plot: ModuleType, report: Report) -> Any:
    """Returns the figure; typed as Any, because matplotlib's artists have few types."""
    figure = plot.draw(report)
    assert figure is not None
    return figure


def heat(figure: Any) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.masked_invalid(figure.axes[0].images[0].get_array())


def bars(figure: Any) -> dict[str, list[tuple[float, float]]]:
    """Returns (bottom, top) of each rank's bar, by phase."""
    collections = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    paths = {str(c.get_label()): [np.asarray(path.vertices)[:, 1] for path in c.get_paths()] for c in collections}
    return {label: [(ys.min(), ys.max()) for ys in heights] for label, heights in paths.items()}


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def subtitle(figure: Any) -> str:
    """Returns the line below the title, which may be folded."""
    return " ".join(figure.axes[0].get_title(loc="left").split())


def ticks(figure: Any, axis: str) -> list[str]:
    return [label.get_text() for label in getattr(figure.axes[0], f"get_{axis}ticklabels")()]


def test_bars_are_stacked_phases() -> None:
    report = report_of(**JOB)
    drawn, rows = bars(drawn_by(iteration_by_rank, report)), values_of(report)["ranks"]
    assert list(drawn) == [phase for phase in PHASES if phase != "evaluation"], "no evaluation ran"
    for place, row in enumerate(rows):
        top = 0.0
        for phase, spans in drawn.items():
            bottom, height = spans[place]
            assert (bottom, height - bottom) == pytest.approx((top, row["phases_ns"][phase] / 1e6))
            top = height


def test_of_thousands_of_ranks_the_remarkable_ones_are_drawn() -> None:
    """Every eighth of 4,096 ranks has a long forward: each column of eight ranks shows one of these."""
    figure = drawn_by(iteration_by_rank, grown(report_of(**JOB), 4096))
    forward = [top - bottom for bottom, top in bars(figure)["forward"]]
    assert len(forward) == 512 and min(forward) > 45
    assert subtitle(figure).endswith("of each 8 ranks the one furthest from the median")
    assert ticks(figure, "x")[:3] == ["0", "512", "1024"], "the first of the eight, whichever is drawn"
    assert any(text.startswith("rank 5: ") for text in texts(figure))


def test_the_slow_rank_is_named_above_its_bar() -> None:
    assert "rank 5: forward +40.0 ms" in texts(drawn_by(iteration_by_rank, report_of(**JOB, noise=0.0)))
    assert texts(drawn_by(iteration_by_rank, report_of(dp=4)))[-1] == "Iteration time by rank"


def test_skew_map_has_its_maximum_at_the_slow_rank() -> None:
    report = report_of(**JOB)
    drawn, skew = heat(drawn_by(skew_map, report)), values_of(report)["skew"]["map"]
    np.testing.assert_allclose(drawn * 1e6, np.array(skew["excess_ns"], np.float64))
    rank, column = np.unravel_index(np.argmax(drawn), drawn.shape)
    assert (skew["ranks"][rank], skew["subjects"][column], skew["phases"][column]) == (
        5,
        "blocks.1.moe.router",
        "forward",
    )
    assert ticks(drawn_by(skew_map, report), "x")[column] == "blocks.1.moe.router (fwd)"
    assert any(re.fullmatch(r"\+(40|(39|40)\.\d)", text) for text in texts(drawn_by(skew_map, report)))


def test_skew_map_colours_are_centred_at_zero() -> None:
    figure = drawn_by(skew_map, report_of(**JOB))
    image = figure.axes[0].images[0]
    assert image.norm.vmin == pytest.approx(-(image.norm.vmax or 0))
    assert image.norm.vmax == pytest.approx(float(np.abs(heat(figure)).max()))


def test_missing_modules_are_masked_in_the_skew_map() -> None:
    report = report_of(dp=4, pp=2, layers=4)
    missing = [[value is None for value in row] for row in report.skew.map.excess_ns]
    assert np.any(missing)
    np.testing.assert_array_equal(np.ma.getmaskarray(heat(drawn_by(skew_map, report))), missing)


def test_shared_lines_have_the_extreme() -> None:
    excess = np.array([[1.0, -1.0], [-5.0, 0.5], [np.nan, 2.0], [0.5, np.nan], [3.0, np.nan]])
    shared = style.shared_rows(excess, 2)
    np.testing.assert_array_equal(shared, [[-5.0, -1.0], [0.5, 2.0], [3.0, np.nan]])
    np.testing.assert_array_equal(style.shared_rows(excess, 1), excess)


def test_step_spread_has_the_durations_of_steps() -> None:
    report = report_of(**JOB, steps=5)
    figure = drawn_by(step_spread, report)
    durations = np.array([row["step_durations_ns"] for row in values_of(report)["ranks"]]) / 1e6
    middle, dots = (np.asarray(line.get_ydata(), np.float64) for line in figure.axes[0].lines)
    np.testing.assert_allclose(dots, durations.ravel())
    np.testing.assert_allclose(middle, np.median(durations, axis=1))
    ends = [np.array(c.get_segments())[:, :, 1] for c in figure.axes[0].collections]
    np.testing.assert_allclose(ends[0], np.stack([durations.min(axis=1), durations.max(axis=1)], axis=1))


def test_expert_load_is_tokens_over_mean() -> None:
    report = report_of(**JOB)
    tokens = np.array([layer["tokens"] for layer in values_of(report)["experts"]], np.float64)
    figure = drawn_by(expert_load, report)
    np.testing.assert_allclose(heat(figure), tokens / tokens.mean(axis=1, keepdims=True))
    norm = figure.axes[0].images[0].norm
    assert (norm(1.0), norm(heat(figure).max())) == (0.5, 1.0), "a balanced load has the middle colour"
    assert figure.axes[1].get_ylim()[0] == 0, "no load is negative"


def test_unrecorded_experts_are_grey_and_dead_ones_crossed() -> None:
    report = report_of(dp=2, layers=4)
    first, second = report.experts
    layers = (replace(first, tokens=(4, 0, None, 2)), replace(second, num_experts=2, tokens=(1, 1)))
    figure = drawn_by(expert_load, replace(report, experts=layers))
    np.testing.assert_array_equal(heat(figure).filled(-1), [[2, 0, -1, 1], [1, 1, -1, -1]])
    (crosses,) = figure.axes[0].lines
    assert list(zip(*crosses.get_data(), strict=True)) == [(1, 0)]


def test_plots_without_data_are_not_drawn() -> None:
    one, dense = report_of(dp=1, steps=1), report_of(dp=2, experts=0)
    untimed = replace(one, ranks=tuple(replace(r, iteration_ns=None, step_durations_ns=()) for r in one.ranks))
    assert [module.draw(one) is None for module in MODULES] == [False, True, True, False, True, True]
    assert [module.draw(dense) is None for module in MODULES] == [False, False, False, True, True, True]
    assert [module.draw(untimed) is None for module in MODULES] == [True, True, True, False, True, True]


@pytest.mark.parametrize("job", [{"dp": 1}, JOB, {"dp": 520, "layers": 2, "experts": 2, "slow_rank": 300}])
def test_plots_have_title_labels_and_few_ticks(job: dict[str, Any]) -> None:
    for module in MODULES:
        report = report_of(**job)
        figure = module.draw(replace(report, collectives=collectives_of(report.run.world_size)))
        if figure is None:
            assert (module, job) == (skew_map, {"dp": 1})
            continue
        axes = figure.axes[0]
        assert axes.texts[-1].get_text() and axes.get_title(loc="left") and axes.get_ylabel()
        assert any(each.get_xlabel() for each in figure.axes)
        assert figure.legends or len(figure.axes) == 2, "a legend, a colour bar or two panels"
        assert max(len(ticks(figure, "x")), len(ticks(figure, "y"))) <= 32
        assert max(figure.get_size_inches()) <= 12


def test_the_slow_rank_is_marked_in_shared_lines() -> None:
    report = report_of(dp=520, layers=2, experts=2, slow_rank=300)
    figure = drawn_by(skew_map, report)
    drawn = heat(figure)
    assert drawn.shape[0] == 174, "three ranks share a line"
    assert drawn.max() * 1e6 == pytest.approx(max(v for row in report.skew.map.excess_ns for v in row if v is not None))
    assert any(text.startswith("rank 300: +") for text in texts(figure))


def report_with(name: str) -> Report:
    """Returns a report that has the data of a plot."""
    if name in ("timeline", "hosts", "rank_grid", "data_wait"):
        job = SimulatedJob(data_parallel(), 4, {"world": (0, 1, 2, 3)}, hosts=lambda rank: f"node{rank // 2}")
        return analyse(job.run())
    if name == "pipeline":
        return report_of(dp=4, pp=2, layers=4)
    if name in ("expert_times", "expert_drops", "expert_traffic"):
        return with_findings_on_experts(report_of(dp=4, ep=4, layers=4, experts=4, hot=5))
    return report_of(dp=1) if name == "module_map" else replace(report_of(**JOB), collectives=collectives_of(8))


@pytest.mark.slow
def test_the_same_report_gives_the_same_bytes() -> None:
    for name in plots.NAMES:
        report = report_with(name)
        first = plots.draw(name, report)
        with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.hashsalt": None}):
            assert plots.draw(name, report) == first
        assert list(first) == [f"{name}.png", f"{name}.svg"]
        assert first[f"{name}.png"].startswith(b"\x89PNG")
        assert b"Software" not in first[f"{name}.png"]
        assert b"<dc:date>" not in first[f"{name}.svg"] and b"matplotlib.org" not in first[f"{name}.svg"].lower()


def test_names_are_not_parsed_as_mathematics_or_markup() -> None:
    report = report_of(**JOB)
    strange = replace(report.skew.map, subjects=tuple("a$\\frac$<\x1b\x00>" for _ in report.skew.map.subjects))
    svg = plots.draw("skew_map", replace(report, skew=replace(report.skew, map=strange)))["skew_map.svg"]
    assert "a$\\frac$<\\x1b\\x00> (fwd)" in "".join(ElementTree.fromstring(svg).itertext())


def frames(figure: Any) -> list[tuple[float, float]]:
    """Returns (row, column) of the framed cells."""
    return [(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in figure.axes[0].patches]


def test_skew_map_frames_only_ranks_that_the_verdict_names() -> None:
    slow, together = report_of(**JOB), report_of(dp=8, ep=4, slow_rank=1, waits_in="blocks.1.moe")
    assert [row for row, _ in frames(drawn_by(skew_map, slow))] == [5]
    assert sorted(row for row, _ in frames(drawn_by(skew_map, together))) == [0, 1, 2, 3]
    assert {one.rank for one in together.verdict.ranks.named} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("job", "words"),
    [({"dp": 4}, "no rank stands out"), ({"dp": 4, "steps": 2, "slow_rank": 1}, "not enough to tell who is slow")],
)
def test_plots_name_no_rank_without_a_slow_rank(job: dict[str, Any], words: str) -> None:
    report = report_of(**job)
    figure = drawn_by(skew_map, report)
    assert report.verdict.ranks.named == () and frames(figure) == []
    assert subtitle(figure).endswith(words) and "rank 1" not in subtitle(figure)
    image = figure.axes[0].images[0]
    assert (image.norm.vmax or 0) >= 2 * float(np.nanmax(np.abs(heat(figure)))), "differences by chance are pale"
    assert texts(drawn_by(iteration_by_rank, report))[-1] == "Iteration time by rank"


def test_ranks_of_which_one_is_slow_are_marked() -> None:
    marks = texts(drawn_by(iteration_by_rank, report_of(dp=8, ep=4, slow_rank=1, waits_in="blocks.1.moe")))
    assert marks.count("▼") == 4
    assert "ranks 0-3: one of these is slow" in marks


def bold_values(figure: Any) -> list[tuple[float, float]]:
    """Returns (row, column) of the cells with bold values; the title is no cell."""
    values = figure.axes[0].texts[:-1]
    return [text.get_position()[::-1] for text in values if text.get_fontweight() == "bold"]


def test_expert_load_marks_only_the_expert_that_the_verdict_names() -> None:
    hot, balanced = report_of(**JOB), report_of(dp=4, ep=2, layers=4, noise=0.0)
    named = hot.verdict.expert
    row = [layer.name for layer in hot.experts].index(named.layer)
    figure = drawn_by(expert_load, hot)
    assert bold_values(figure) == [(row, named.expert)]
    assert subtitle(figure).endswith(f"overloaded: expert {named.expert} of {named.layer}")
    figure = drawn_by(expert_load, balanced)
    assert len(figure.axes[0].texts) > 1 and bold_values(figure) == []
    assert subtitle(figure).endswith("no expert is overloaded")


def with_collectives(ranks: int = 4, **changes: Any) -> Report:
    job = report_of(dp=4, layers=2, slow_rank=1)
    return replace(job, collectives=replace(collectives_of(ranks), **changes))


def test_collectives_have_own_time_wait_and_transfer() -> None:
    figure = drawn_by(collectives, with_collectives())
    spans = [(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    np.testing.assert_allclose(spans, [(0, 0, 40), (0, 40, 25), (0, 65, 5), (1, 0, 2), (1, 2, 3)], atol=1e-9)
    assert ticks(figure, "y") == ["dp all_reduce", "world barrier"]
    assert {"30%", "3%"} <= set(texts(figure))
    unseen = replace(collectives_of(4).rows[0], wait_ns=None, transfer_ns=None)
    assert collectives.draw(with_collectives(rows=(unseen,))) is None


def test_arrival_lag_marks_only_ranks_that_the_verdict_names() -> None:
    report = with_collectives()
    figure = drawn_by(arrival_lag, report)
    lags, waits = ([bar.get_height() for bar in axes.patches] for axes in figure.axes)
    assert lags == pytest.approx([-2, 20, -2, -2])
    assert waits == pytest.approx([25, 0.5, 25, 25])
    for axes in figure.axes:
        assert [text.xy[0] for text in axes.texts if text.get_text() == "▼"] == [1]
    healthy = replace(report, verdict=report_of(dp=4).verdict)
    assert "▼" not in texts(drawn_by(arrival_lag, healthy))


def test_arrival_lag_of_many_ranks_is_two_lines() -> None:
    figure = drawn_by(arrival_lag, with_collectives(ranks=520))
    lags, waits = (np.asarray(axes.lines[0].get_ydata(), np.float64) for axes in figure.axes)
    assert (waits[1], lags[1], len(waits)) == (0.5, 20, 520)


def test_a_long_subtitle_is_folded_to_the_width_of_the_figure() -> None:
    report = report_of(**JOB)
    report = replace(report, run=replace(report.run, name="an experiment with a long name " * 5))
    figure = drawn_by(skew_map, report)
    lines = figure.axes[0].get_title(loc="left").splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 16 * figure.get_figwidth()
