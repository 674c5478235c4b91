"""The Experts block: the balance of every MoE layer in five figures, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import NOT_AVAILABLE, duration, percentage, ratio
from distprof.merge.report import ExpertLayerStats, Report
from distprof.merge.text.blocks.moe.findings import findings
from distprof.merge.text.format.lines import heading, one_line, table
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import join_words
from distprof.rank_names import few_spans

_LAYER_WIDTH = 36
_LAYERS_UP_TO = 24


def experts_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where the model has no MoE layers."""
    summary = report.expert_summary
    if summary is None:
        return
    yield heading("Experts")
    yield "Loads are tokens over all ranks and timed steps, the worst layer first; max/mean is 1 when balanced."
    by_ep = any(layer.ep_tokens for layer in report.experts)
    if by_ep:
        yield "ep max/mean compares ep ranks, each with the tokens of all its experts: the largest one sets the time."
    with_cost = any(layer.ep_cost_ns is not None for layer in report.experts)
    if with_cost:
        yield "cost: by how much the own time of the slowest ep rank in the layer exceeds the mean, in an iteration."
    names = shortened_apart([one_line(layer.name) for layer in report.experts], _LAYER_WIDTH)
    shown = [report.experts[place] for place in summary.worst_first[:_LAYERS_UP_TO]]
    columns = [*(["ep max/mean"] if by_ep else []), *(["cost"] if with_cost else [])]
    titles = ["layer", *columns, "max/mean", "hottest", "dead", "dropped"]
    cells = [_cells(layer, names[one_line(layer.name)], by_ep=by_ep, with_cost=with_cost) for layer in shown]
    yield from table(titles, cells, left=["layer", "dead"])
    if len(shown) < len(report.experts):
        yield f"({len(report.experts) - len(shown)} layers are better; summary.json and tables/experts.csv have all)"
    guessed = [names[one_line(layer.name)] for layer in report.experts if layer.guessed]
    if guessed:
        yield f"Found by their weights or calls, as no name says that these are experts: {join_words(guessed)}."
    yield from findings(report)


def _cells(layer: ExpertLayerStats, name: str, *, by_ep: bool, with_cost: bool) -> list[str]:
    return [
        name,
        *([ratio(layer.ep_max_over_mean)] if by_ep else []),
        *([duration(layer.ep_cost_ns)] if with_cost else []),
        ratio(layer.max_over_mean),
        NOT_AVAILABLE if layer.hottest is None else str(layer.hottest),
        (few_spans(layer.dead, "expert") or "none") if _has_tokens(layer) else NOT_AVAILABLE,
        NOT_AVAILABLE if layer.drop_rate is None else percentage(layer.drop_rate, 1),
    ]


def _has_tokens(layer: ExpertLayerStats) -> bool:
    return bool(layer.steps) and any(tokens is not None for tokens in layer.tokens)
