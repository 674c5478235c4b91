"""The plots of MoE layers: ep ranks, and the balance over the steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from support.reports import report_of

from distprof.merge.plots.experts import (
    expert_drops,
    expert_load,
    expert_ranks,
    expert_steps,
    expert_times,
    expert_traffic,
)
from distprof.merge.report import TOKENS_AND_DEVICE, ExpertTraffic, Report, TokensOrDevice


@pytest.fixture(scope="module")
def report() -> Report:
    return report_of(dp=4, ep=4, layers=4, experts=4, steps=8, hot=5, noise=0)


def figure(drawn: Any) -> Any:
    assert drawn is not None
    return drawn


def title(axes: Any) -> str:
    return " ".join(axes.get_title(loc="left").split())


def test_the_loads_of_a_wide_layer_have_lines_between_ep_ranks_and_coloured_dead_experts() -> None:
    report = report_of(dp=4, ep=4, layers=4, experts=80, steps=2, hot=5, noise=0)
    first, second = report.experts
    dead = replace(first, tokens=(*first.tokens[:-1], 0), dead=(79,))
    axes = figure(expert_load.draw(replace(report, experts=(dead, second)))).axes[0]
    loads, marks = axes.images
    assert np.argwhere(~np.ma.getmaskarray(marks.get_array())).tolist() == [[0, 79]]
    edge, circle, *lines = axes.lines
    assert [line.get_xdata()[0] for line in lines] == [19.5, 39.5, 59.5]
    assert edge.get_xydata().tolist() == circle.get_xydata().tolist() == [[1, 0]], (
        "expert 1 of the first layer is overloaded"
    )
    assert not edge.get_clip_on() and not circle.get_clip_on(), "else half of the circle is cut off at an edge"
    assert axes.get_xlabel() == "expert (green: no token; lines: ep ranks)"
    assert np.asarray(loads.get_array()).shape == (2, 80)


def test_of_very_many_experts_the_remarkable_ones_are_drawn() -> None:
    report = report_of(dp=1, layers=2, experts=4, steps=2)
    (layer,) = report.experts
    tokens = [10] * 600
    tokens[301], tokens[302], tokens[500] = 40, 11, 0
    wide = replace(layer, num_experts=600, tokens=tuple(tokens), dead=(500,))
    axes = figure(expert_load.draw(replace(report, experts=(wide,)))).axes[0]
    loads = np.asarray(axes.images[0].get_array())[0] * sum(tokens) / 600
    assert loads.shape == (200,)
    assert loads[100] == pytest.approx(40) and loads[166] == pytest.approx(0) and loads[0] == pytest.approx(10)
    assert "of 3 experts, the one furthest from the mean" in axes.get_xlabel()


def test_ep_ranks_are_tokens_over_the_mean(report: Report) -> None:
    axes = figure(expert_ranks.draw(report)).axes[0]
    values = np.asarray(axes.images[0].get_array())
    assert values.shape == (2, 4)
    assert values[0] == pytest.approx([0.5, 2.5, 0.5, 0.5]), "the hot expert is that of ep rank 1"
    assert "worst: blocks.1.moe" in title(axes) and "ep rank 1 with 2.50 x" in title(axes)


def test_the_cost_of_the_worst_layer_is_in_the_title(report: Report) -> None:
    first, second = report.experts
    drawn = figure(expert_ranks.draw(replace(report, experts=(replace(first, load_cost_ns=12.5e6), second))))
    assert "equal loads would save up to 12.5 ms of an iteration there" in title(drawn.axes[0])


def test_the_most_unequal_layer_is_named_where_another_one_costs_most(report: Report) -> None:
    first, second = report.experts
    assert first.ep_load is not None and report.expert_summary is not None
    calm = replace(first, ep_max_over_mean=1.1, ep_load=replace(first.ep_load, max_over_mean=1.1), ep_cost_ns=9e6)
    drawn = figure(expert_ranks.draw(replace(report, experts=(calm, second))))
    assert "ep rank 1 with 1.10 x, cost 9 ms; most unequal: blocks.3.moe, ep rank 1 with 2.50" in title(drawn.axes[0])


def test_the_map_of_experts_names_the_worst_layer_its_rank_and_its_cost(report: Report) -> None:
    first, second = report.experts
    drawn = figure(expert_load.draw(replace(report, experts=(replace(first, ep_cost_ns=9e6), second))))
    words = "worst: blocks.1.moe, expert 1 with 2.50 x the mean, ep rank 1 with 2.50 x, cost 9 ms"
    assert words in title(drawn.axes[0])


def test_labels_of_ep_ranks_do_not_cover_each_other(report: Report) -> None:
    first, second = report.experts
    found = TokensOrDevice(TOKENS_AND_DEVICE, 0.0, 8e6, (1.0, 1.0, 1.5, 1.0), 3e6)
    close = replace(first, ep_tokens=(800, 1600, 808, 1592), ep_own_ns=(4e6, 8e6, 4.1e6, 8.1e6), tokens_or_device=found)
    axes = figure(expert_times.draw(replace(report, experts=(close, second)))).axes[0]
    labels = sorted(text.get_text() for text in axes.texts if text.get_text().isdecimal())
    assert labels == ["1", "2"], "of each pair one, a slow one first"


def test_the_line_below_the_title_ends_inside_of_the_figure() -> None:
    report = report_of(dp=8, ep=8, layers=4, experts=8, steps=2, hot=5, noise=0)
    for letters in range(1, 40, 3):  # lines are folded at other places
        drawn = figure(expert_ranks.draw(replace(report, run=replace(report.run, name="n" * letters))))
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        axes = drawn.axes[0]
        assert max(len(label.get_text()) for label in axes.get_yticklabels()) > 8
        line = axes.get_title(loc="left")
        (text,) = [child for child in axes.get_children() if isinstance(child, Text) and child.get_text() == line]
        assert text.get_window_extent(canvas.get_renderer()).x1 <= drawn.bbox.x1


def test_steps_have_the_median_and_the_worst_layer(report: Report) -> None:
    first, second = report.experts
    assert second.over_steps is not None
    calm = replace(second.over_steps, max_violation=(0.5,) * 8)
    drawn = figure(expert_steps.draw(replace(report, experts=(first, replace(second, over_steps=calm)))))
    violation, entropy = drawn.axes
    median, worst = violation.lines
    assert median.get_ydata() == pytest.approx([1.0] * 8), "between 1.5 and 0.5"
    assert worst.get_ydata() == pytest.approx([1.5] * 8)
    assert len(entropy.lines[0].get_xdata()) == 8


def test_tokens_against_time_show_the_slow_rank_above_the_line(report: Report) -> None:
    first, second = report.experts
    found = TokensOrDevice(TOKENS_AND_DEVICE, 0.0, 8e6, (1.0, 1.0, 1.5, 1.0), 3e6)
    own_ns = (4e6, 20e6, 6e6, 4e6)
    costly = replace(second, ep_own_ns=own_ns, ep_cost_ns=11.5e6, tokens_or_device=found)
    assert report.expert_summary is not None
    summary = replace(report.expert_summary, worst_first=(1, 0))
    axes = figure(expert_times.draw(replace(report, experts=(first, costly), expert_summary=summary))).axes[0]
    line, others, slow = axes.lines
    assert [others.get_ydata().tolist(), slow.get_ydata().tolist()] == [[4, 20, 4], [6]]
    assert np.interp(100, line.get_xdata(), line.get_ydata()) == pytest.approx(4), "100 tokens of a mean of 200"
    assert "worst: blocks.3.moe, expert 1 with 2.50 x the mean, ep rank 1 with 2.50 x, cost 11.5 ms" in title(axes)
    assert "both tokens and a device" in title(axes) and "ep rank 2 takes 1.50 x as long" in title(axes)


def test_drops_and_dead_experts_over_the_steps(report: Report) -> None:
    first, second = report.experts
    assert first.over_steps is not None and second.over_steps is not None
    lossy = replace(first.over_steps, dropped=tuple(range(8)), dead=(0, 0, 2, 0, 0, 0, 0, 0))
    layers = replace(first, over_steps=lossy), second
    dropped, dead = figure(expert_drops.draw(replace(report, experts=layers))).axes
    assert dropped.lines[0].get_ydata().tolist() == list(range(8))
    assert dead.lines[0].get_ydata().tolist() == [0, 0, 2, 0, 0, 0, 0, 0]


def test_traffic_is_drawn_by_source_and_expert(report: Report) -> None:
    traffic = ExpertTraffic((0, 1), ((30.0, 10.0), (0.0, 20.0)), 256, 10240.0, 1 / 6, 0.0)
    axes = figure(expert_traffic.draw(replace(report, expert_traffic=traffic))).axes[0]
    assert np.ma.filled(axes.images[0].get_array(), 0).tolist() == [[30, 10], [0, 20]]
    assert "17% of tokens leave their rank, 0% their host" in title(axes) and "worst: blocks.1.moe" in title(axes)


def test_what_has_no_data_is_not_drawn(report: Report) -> None:
    dense = report_of(dp=2, layers=2, experts=0)
    alone = tuple(replace(layer, ep_tokens=()) for layer in report.experts)
    unseen = tuple(replace(layer, over_steps=None) for layer in report.experts)
    assert expert_ranks.draw(dense) is None and expert_steps.draw(dense) is None
    assert expert_drops.draw(report) is None and expert_traffic.draw(report) is None
    assert expert_times.draw(dense) is None and expert_times.draw(report) is None, "no own times"
    assert expert_ranks.draw(replace(report, experts=alone)) is None
    assert expert_steps.draw(replace(report, experts=unseen)) is None


def test_numbers_of_experts_are_whole(report: Report) -> None:
    layer = report.experts[0]
    assert layer.over_steps is not None
    dead = replace(layer.over_steps, dead=tuple(12 for _ in layer.over_steps.dead))
    axes = figure(expert_drops.draw(replace(report, experts=(replace(layer, over_steps=dead),)))).axes[1]
    assert all(tick == round(tick) for tick in axes.get_yticks())


@pytest.mark.parametrize("plot", [expert_steps, expert_drops])
def test_the_legend_covers_no_line(report: Report, plot: Any) -> None:
    """Also not one that is as high at the last step as anywhere."""
    worse = []
    for layer in report.experts * 8:
        assert layer.over_steps is not None
        dead = tuple(2 for _ in layer.over_steps.dead)
        worse.append(replace(layer, over_steps=replace(layer.over_steps, dead=dead, dropped=dead)))
    drawn = figure(plot.draw(replace(report, experts=tuple(worse))))
    FigureCanvasAgg(drawn).draw()
    for axes in drawn.axes:
        if axes.get_legend() is None:
            continue
        box = axes.get_legend().get_window_extent()
        for line in axes.lines:
            places = axes.transData.transform(line.get_xydata())
            assert not [place for place in places if box.contains(*place)], line.get_label()


def test_the_cost_names_the_ep_rank_that_makes_it(report: Report) -> None:
    """The largest ep rank need not be the slowest one: a device may be slow."""
    first, second = report.experts

    def words(own_ns: tuple[float | None, ...], cost_ns: float | None) -> str:
        changed = replace(first, ep_own_ns=own_ns, ep_cost_ns=cost_ns)
        return title(figure(expert_ranks.draw(replace(report, experts=(changed, second)))).axes[0])

    assert "ep rank 1 with 2.50 x, cost 3 ms by ep rank 3" in words((4e6, 5e6, 4e6, 9e6), 3e6)
    assert "ep rank 1 with 2.50 x, cost 3 ms" in words((4e6, 9e6, 4e6, 5e6), 3e6)
    assert "by ep rank" not in words((4e6, 9e6, 4e6, 5e6), 3e6)
    assert "ep rank 1 with 2.50 x, cost n/a" in words((), None)
