"""The pictures of hosts, places, memory, stages and waits show the numbers of the report, and name whom it names."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from support.reports import report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel

from distprof.merge import plots
from distprof.merge.analyse import analyse
from distprof.merge.plots import data_wait, hosts, memory, pipeline, rank_grid, self_times, skew_map, step_spread, style
from distprof.merge.report import HOLDINGS, GainGrid, HostRow, RankRow, Report, StageRow

MS = 1e6
MANY = 2048


@lru_cache(maxsize=4)
def report(slow: int = 5) -> Report:
    """Returns the report of 8 ranks on 4 hosts, one of them slow (-1: none), with own times."""
    program = data_parallel(lambda rank, step: 30 * (rank == slow))
    job = SimulatedJob(program, 8, {"world": tuple(range(8))}, hosts=lambda rank: f"node{rank // 2}")
    return analyse(job.run())


def figure_of(plot: Any, shown: Report) -> Any:
    figure = plot.draw(shown)
    assert figure is not None
    axes = figure.axes[0]
    assert axes.get_title(loc="left") and axes.get_xlabel() and axes.get_ylabel()
    assert len(axes.get_xticks()) <= 33 and max(figure.get_size_inches()) <= 12
    return figure


def heights(figure: Any) -> list[list[float]]:
    """Returns (bottom, top) of the bars of each collection, flattened."""
    found = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    ends = [[np.asarray(path.vertices)[:, 1] for path in c.get_paths()] for c in found]
    return [[float(value) for ys in own for value in (ys.min(), ys.max())] for own in ends]


def heat(figure: Any) -> Any:
    return np.ma.masked_invalid(figure.axes[0].images[0].get_array()).filled(np.nan)


def words(figure: Any) -> str:
    return " ".join(figure.axes[0].get_title(loc="left").split())


def marks(figure: Any) -> list[float]:
    """Returns where the axes have a mark, along them."""
    return [text.xy[0] for text in figure.axes[0].texts if text.get_text().startswith("▼")]


def test_hosts_have_own_time_and_wait() -> None:
    shown = report()
    figure = figure_of(hosts, shown)
    own, wait = heights(figure)
    np.testing.assert_allclose(own[1::2], [row.own_ns / MS for row in shown.hosts if row.own_ns])
    np.testing.assert_allclose(
        np.array(wait[1::2]) - wait[::2], [row.wait_ns / MS for row in shown.hosts if row.wait_ns is not None]
    )
    assert marks(figure) == [2] and "1 of 2" in figure.axes[0].texts[0].get_text()
    assert marks(figure_of(hosts, report(-1))) == []
    assert hosts.draw(report_of(dp=4)) is None, "one host"


def test_the_grid_has_what_the_report_gains() -> None:
    shown = report()
    assert shown.gains.by_replay and (shown.gains.row_axis, shown.gains.column_axis) == ("host", "local rank")
    figure = figure_of(rank_grid, shown)
    np.testing.assert_allclose(heat(figure) * MS, np.array(shown.gains.gain_ns, np.float64))
    assert divmod(int(np.nanargmax(heat(figure))), 2) == (2, 1), "rank 5 is on node2"
    frames = [(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in figure.axes[0].patches]
    assert frames == [(2, 1)] and "the most at host node2, local rank 1" in words(figure)
    healthy = figure_of(rank_grid, report(-1))
    assert len(healthy.axes[0].patches) == 0 and words(healthy).endswith("no rank is named")
    assert rank_grid.draw(report_of(dp=4)) is None


@pytest.mark.parametrize("plot", [skew_map, rank_grid])
def test_nothing_hides_the_frame_of_a_named_rank(plot: ModuleType) -> None:
    figure = figure_of(plot, report())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    (frame,) = figure.axes[0].patches
    left, top = frame.get_xy()
    for x, y in ((left, top + 0.2), (left + 1, top + 0.2), (left + 0.2, top), (left + 0.2, top + 1)):
        right, up = figure.axes[0].transData.transform((x, y))
        assert pixels[len(pixels) - 1 - round(up), round(right), :3].max() < 100, "the edge is dark"


def test_a_slow_place_among_many_is_a_column_of_its_own() -> None:
    gains = np.zeros((2, 1024))
    gains[1, 700] = 20e6
    columns = range(gains.shape[1])
    grid = GainGrid(
        "pp", "dp", ("0", "1"), tuple(map(str, columns)),
        tuple(tuple((row * 1024 + column,) for column in columns) for row in range(2)),
        tuple(tuple(row) for row in gains.tolist()), by_replay=False,
    )  # fmt: skip
    figure = figure_of(rank_grid, replace(report(), gains=grid))
    drawn = heat(figure)
    assert drawn.shape == (2, 256) and drawn[1, 700 // 4] == pytest.approx(20)
    assert "each column has the extremes of 4" in words(figure) and "own time" in words(figure)


def test_a_slow_host_among_thousands_is_circled() -> None:
    """Rows of one rank in eight hosts share a line; the slow place's own colour is not hidden by a frame."""
    gains = np.zeros((2048, 8))
    gains[625, 1] = 20e6
    ranks = tuple(
        tuple((5 if (row, at) == (625, 1) else 10_000 + 8 * row + at,) for at in range(8)) for row in range(2048)
    )
    grid = GainGrid(
        "host", "local rank", tuple(f"node{row}" for row in range(2048)), tuple(map(str, range(8))), ranks,
        tuple(tuple(row) for row in gains.tolist()), by_replay=False,
    )  # fmt: skip
    figure = figure_of(rank_grid, replace(report(), gains=grid))
    drawn = heat(figure)
    assert drawn.shape == (256, 8) and drawn[625 // 8, 1] == pytest.approx(20)
    (circle,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert (circle.get_xdata()[0], circle.get_ydata()[0]) == (1, 625 // 8) and not figure.axes[0].patches
    assert "each row has the extremes of 8" in words(figure) and "circled: named ranks" in words(figure)
    assert "host node625, local rank 1: +20 ms" in words(figure)


def test_self_times_are_forward_backward_and_wait() -> None:
    shown = report()
    figure = figure_of(self_times, shown)
    found = [(bar.get_y() + bar.get_height() / 2, bar.get_width() * MS) for bar in figure.axes[0].patches]
    expected = [
        (place, part)
        for place, row in enumerate(shown.time.modules)
        for part in (row.forward_ns, row.backward_ns, row.wait_ns)
        if part
    ]
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-3)
    assert self_times.draw(replace(shown, time=replace(shown.time, modules=()))) is None


def test_memory_is_stacked_below_the_peak() -> None:
    shown = report_of(dp=4, layers=2)
    figure = figure_of(memory, shown)
    size = 1 << 20
    bottom = np.zeros(4)
    for own, what in zip(heights(figure), ("parameters", "gradients", "optimizer state"), strict=True):
        top = bottom + [getattr(row, HOLDINGS[what]) / size for row in shown.ranks]
        np.testing.assert_allclose(own, np.stack([bottom, top], axis=1).ravel())
        bottom = top
    (peaks,) = (c for c in figure.axes[0].collections if not isinstance(c, PolyCollection))
    np.testing.assert_allclose(
        [line[0][1] for line in peaks.get_segments()], [(row.peak_memory_bytes or 0) / size for row in shown.ranks]
    )
    unknown = tuple(
        replace(row, parameter_bytes=None, gradient_bytes=None, optimizer_bytes=None) for row in shown.ranks
    )
    bare = figure_of(memory, replace(shown, ranks=unknown))
    assert [text.get_text() for text in bare.legends[0].get_texts()] == ["peak"]
    nothing = tuple(replace(row, peak_memory_bytes=None) for row in unknown)
    assert memory.draw(replace(shown, ranks=nothing)) is None


def test_stages_have_their_times_and_bubbles() -> None:
    rows = (
        StageRow(0, 1, (0, 1), 4.0, 10e6, 20e6, 9e6, 0.23, 0.2),
        StageRow(1, 1, (2, 3), 4.0, 12e6, 22e6, 5e6, None, 0.2),
    )
    figure = figure_of(pipeline, replace(report(), pipeline=rows))
    spans = [(round(bar.get_y() + 0.35), bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    np.testing.assert_allclose(spans, [(0, 0, 10), (0, 10, 20), (0, 30, 9), (1, 0, 12), (1, 12, 22), (1, 34, 5)])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == "bubble 23%" and "the bubble would be 20%" in words(figure)
    assert pipeline.draw(report()) is None


def test_data_waits_have_median_and_longest_step() -> None:
    shown = report()
    figure = figure_of(data_wait, shown)
    np.testing.assert_allclose(heights(figure)[0][1::2], [(row.phases_ns["data"] or 0) / MS for row in shown.ranks])
    (lines,) = (c for c in figure.axes[0].collections if not isinstance(c, PolyCollection))
    np.testing.assert_allclose(
        [line[0][1] for line in lines.get_segments()], [(row.data_max_ns or 0) / MS for row in shown.ranks]
    )
    assert marks(figure) == [], "rank 5 is slow, but not in its data"
    found = shown.verdict.ranks
    loading = replace(found, named=tuple(replace(one, phase="data") for one in found.named))
    assert marks(figure_of(data_wait, replace(shown, verdict=replace(shown.verdict, ranks=loading)))) == [5]
    unseen = tuple(replace(row, phases_ns={**row.phases_ns, "data": None}) for row in shown.ranks)
    assert data_wait.draw(replace(shown, ranks=unseen)) is None


def many(shown: Report, slow: int) -> Report:
    """Returns a report of many ranks: copies of rank 0, and one copy of the slow rank."""
    rank = shown.verdict.ranks.named[0].rank

    def row(number: int) -> RankRow:
        own = shown.ranks[rank if number == slow else 0]
        return replace(
            own, rank=number, cohort=0, parameter_bytes=1 << 28, peak_memory_bytes=(1 << 30) + (number << 16)
        )

    found = replace(shown.verdict.ranks, named=tuple(replace(one, rank=slow) for one in shown.verdict.ranks.named))
    rows = tuple(HostRow(f"node{n}", (n,), (), 80e6, 50e6, 30e6, 2e6, None) for n in range(MANY // 8))
    return replace(shown, ranks=tuple(map(row, range(MANY))), hosts=rows, verdict=replace(shown.verdict, ranks=found))


def test_steps_of_many_ranks_are_a_map_of_own_times() -> None:
    shown = many(report(), 1366)
    figure = figure_of(step_spread, shown)
    drawn = heat(figure)
    assert drawn.shape == (256, 10), "8 ranks share a line"
    assert np.unravel_index(np.nanargmax(drawn), drawn.shape)[0] == 1366 // 8
    np.testing.assert_allclose(drawn[1366 // 8], 30, atol=4)
    rest = np.delete(drawn, 1366 // 8, axis=0)
    assert np.abs(rest).max() < 5, "those that wait are not slow"
    assert [text.get_text() for text in figure.axes[0].texts if "◀" in text.get_text()] == ["◀ 1366"]
    image = figure.axes[0].images[0]
    assert image.norm.vmax == pytest.approx(float(np.abs(drawn).max()))


def test_the_map_is_pale_where_nobody_is_named_and_spans_five_percent() -> None:
    shown = many(report(), 1366)
    nobody = replace(shown.verdict.ranks, named=())
    quiet = tuple(replace(shown.ranks[0], rank=row.rank) for row in shown.ranks)
    figure = figure_of(step_spread, replace(shown, ranks=quiet, verdict=replace(shown.verdict, ranks=nobody)))
    limit = figure.axes[0].images[0].norm.vmax * MS
    assert limit >= 2 * max(np.nanmax(np.abs(heat(figure))) * MS, 0.05 * (nobody.iteration_ns or 0) * 0.999)
    assert words(figure).endswith("no rank is named")


def test_without_own_times_durations_are_mapped() -> None:
    rows = report().ranks
    times, own = step_spread.excess_by_step([replace(row, step_own_ns=()) for row in rows], list(range(5, 16)))
    assert not own and np.isnan(times[:, -1]).all(), "no rank has iteration 15"
    durations = np.array([row.step_durations_ns for row in rows], np.float64)
    np.testing.assert_allclose(times[:, :-1], durations - np.median(durations))


@pytest.mark.parametrize("name", ["iteration_by_rank", "hosts", "step_spread", "memory", "data_wait"])
def test_vector_files_of_2048_ranks_are_small(name: str) -> None:
    files = plots.draw(name, many(report(), 1366))
    assert len(files[f"{name}.svg"]) < 300_000


def test_few_parts_stay_vectors() -> None:
    collection = PolyCollection([[(0, 0), (0, 1), (1, 1)]])
    assert not style.rasterised(collection, 8).get_rasterized()
    assert style.rasterised(collection, MANY).get_rasterized()
