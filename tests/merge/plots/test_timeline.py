"""The timeline's picture has the spans of the report, rank by rank."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from support.reports import report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel

from distprof.merge.analyse import analyse
from distprof.merge.plots import timeline
from distprof.merge.report import Report, Span


@lru_cache(maxsize=2)
def report(ranks: int = 4) -> Report:
    program = data_parallel(lambda rank, step: 30 * (rank == 2), noise=0)
    return analyse(SimulatedJob(program, ranks, {"world": tuple(range(ranks))}).run())


def figure_of(shown: Report) -> Any:
    figure = timeline.draw(shown)
    assert figure is not None
    return figure


def boxes(figure: Any, middle: float) -> dict[int, list[tuple[float, float]]]:
    """Returns (start, end) in ms by row, of the boxes whose band lies around ``middle`` of the row."""
    found: dict[int, list[tuple[float, float]]] = {}
    for collection in figure.axes[0].collections:
        assert isinstance(collection, PolyCollection)
        for path in collection.get_paths():
            points = np.asarray(path.vertices)
            row, low, high = round(points[:, 1].mean()), points[:, 1].min(), points[:, 1].max()
            if low - row < middle < high - row:
                found.setdefault(row, []).append((points[:, 0].min(), points[:, 0].max()))
    return {row: sorted(own) for row, own in found.items()}


def spans(own: tuple[Span, ...]) -> list[tuple[float, float]]:
    return sorted((span.start_ns / 1e6, span.end_ns / 1e6) for span in own)


def test_phases_modules_waits_and_collectives_are_drawn_where_they_were() -> None:
    shown = report()
    figure = figure_of(shown)
    for row, one in enumerate(shown.timeline.ranks):
        np.testing.assert_allclose(boxes(figure, -0.3)[row], spans(one.phases))
        np.testing.assert_allclose(boxes(figure, 0.0)[row], sorted(spans(one.modules) + spans(one.waits)))
        np.testing.assert_allclose(
            [start for start, _ in boxes(figure, 0.3)[row]], [s for s, _ in spans(one.collectives)]
        )
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["0", "1", "▶ 2", "3"]


def test_names_are_written_where_there_is_room() -> None:
    figure = figure_of(report())
    written = [text.get_text().strip() for text in figure.axes[0].texts]
    assert written.count("layers.1") == 4 and "(outside modules)" not in written


def test_pauses_have_a_colour_and_their_name() -> None:
    shown = report()
    first, *rest = shown.timeline.ranks
    paused = replace(first, pauses=(Span("garbage collection, generation 2", 5_000_000, 9_000_000),))
    figure = figure_of(replace(shown, timeline=replace(shown.timeline, ranks=(paused, *rest))))
    assert (5.0, 9.0) in boxes(figure, 0.0)[0]
    assert "garbage collection, generation 2" in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("bound", "words"),
    [(None, "were not compared"), (20_000.0, "exact to 20 us"), (0.0, "the nearest to the median")],
)
def test_the_clock_is_told(bound: float | None, words: str) -> None:
    shown = report()
    figure = figure_of(replace(shown, timeline=replace(shown.timeline, bound_ns=bound)))
    assert words in " ".join(figure.axes[0].get_title(loc="left").split())


def test_nothing_is_drawn_without_a_timeline() -> None:
    assert timeline.draw(report_of(dp=2)) is None
