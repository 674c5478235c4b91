"""The charts of MoE layers on the page: balance, drops and dead experts over the steps, and tokens against time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.html.drawings.model import COUNT, RATIO, TIME, Chart, Series
from distprof.merge.report import ExpertLayerStats, LoadOverSteps, Report
from distprof.merge.stats import nan_median, quantile
from distprof.merge.text.blocks.moe.findings import cause_words
from distprof.merge.text.blocks.moe.worst import worst_layer, worst_sentence, worst_words

_FEWEST_STEPS = 2
_Pick = Callable[[LoadOverSteps], Sequence[float | None]]


def expert_charts(report: Report) -> dict[str, Chart | None]:
    """Returns the charts by the names of their places; None for those that have no data."""
    violation = "MaxVio of experts over the steps", "MaxVio", "0 when balanced."
    entropy = "Entropy of loads over the steps", "entropy", "1 when balanced."
    return {
        "expert_balance": _balance(report, lambda one: one.max_violation, *violation, highest_is_worst=True),
        "expert_entropy": _balance(report, lambda one: one.entropy, *entropy, highest_is_worst=False),
        "expert_times": _times(report),
        "expert_drops": _sums(report, lambda one: one.dropped, "Dropped choices over the steps", "choices"),
        "expert_dead": _sums(report, lambda one: one.dead, "Experts without a token over the steps", "experts"),
    }


def _balance(
    report: Report, pick: _Pick, title: str, measure: str, note: str, *, highest_is_worst: bool
) -> Chart | None:
    """Returns a measure over the steps: of the median layer, of one that is worse than most, and of the worst one."""
    steps, table = _over_steps(report, pick)
    if len(steps) < _FEWEST_STEPS or np.isnan(table).all(axis=0).any():
        return None
    series = [Series("median layer", nan_median(table.T).tolist(), "line", 1)]
    if len(table) > 1:
        far, worst = (95, np.nanmax(table, axis=0)) if highest_is_worst else (5, np.nanmin(table, axis=0))
        percentiles = [quantile(layers[~np.isnan(layers)], far / 100) for layers in table.T]
        series += [
            Series(f"{far}th percentile of the layers", percentiles, "line", 6),
            Series("worst layer", worst.tolist(), "line", 3),
        ]
    note = f"{note} {worst_sentence(report)}"
    return Chart(title, "iteration", steps, RATIO, series, note=note, y_title=measure, fits=not highest_is_worst)


def _sums(report: Report, pick: _Pick, title: str, of: str) -> Chart | None:
    """Returns a number over the steps, of all layers and of the layer with the most; None where it is always 0."""
    steps, table = _over_steps(report, pick)
    if not np.nansum(table) or len(steps) < _FEWEST_STEPS:
        return None
    series = [Series("all layers", np.nansum(table, axis=0).tolist(), "line", 1)]
    if len(table) > 1:
        series.append(Series("layer with the most", np.nan_to_num(table).max(axis=0).tolist(), "line", 3))
    return Chart(title, "iteration", steps, COUNT, series, note=worst_sentence(report), y_title=of)


def _times(report: Report) -> Chart | None:
    """Returns tokens against time of the ep ranks of the worst layer; None where these are not known."""
    layer = worst_layer(report) if report.experts else None
    if (
        layer is None
        or layer.tokens_or_device is None
        or not layer.steps
        or None in (*layer.ep_tokens, *layer.ep_own_ns)
    ):
        return None
    tokens = np.array(layer.ep_tokens, np.float64) / layer.steps
    order = np.argsort(tokens, kind="stable")
    explained = _explained(layer, tokens)
    series = [Series("what the tokens explain", explained[order].tolist(), "line", 0)]
    slow = np.array(layer.tokens_or_device.slowness) > 1
    for label, chosen, colour in (("ep ranks", ~slow, 1), ("slow for their tokens", slow, 3)):
        if chosen.any():
            own = [layer.ep_own_ns[rank] if chosen[rank] else None for rank in order]
            series.append(Series(label, own, "points", colour))
    words, why = worst_words(report), cause_words(layer)
    note = f"{words[0].upper()}{words[1:]}{f'; {why}' if why else ''}. A point above the line is slow for its tokens."
    title, x = "Tokens against time by ep rank, in the worst layer", np.rint(tokens[order]).astype(int).tolist()
    names = [f"ep rank {rank}" for rank in order]
    return Chart(title, "tokens in an iteration", x, TIME, series, note=note, y_title="own time", names=names)


def _explained(layer: ExpertLayerStats, tokens: FloatArray) -> FloatArray:
    found = layer.tokens_or_device
    assert found is not None
    explained: FloatArray = found.typical_ns * (found.fixed_share + (1 - found.fixed_share) * tokens / tokens.mean())
    return explained


def _over_steps(
    report: Report, pick: Callable[[LoadOverSteps], Sequence[float | None]]
) -> tuple[list[int], FloatArray]:
    """Returns the iterations, and a measure as (layers, iterations), NaN where a layer has none."""
    every = [layer.over_steps for layer in report.experts if layer.over_steps is not None]
    steps = sorted({step for one in every for step in one.iterations})
    table = np.full((len(every), len(steps)), np.nan)
    for row, one in enumerate(every):
        for step, value in zip(one.iterations, pick(one), strict=False):
            if value is not None:
                table[row, steps.index(step)] = value
    return steps, table
