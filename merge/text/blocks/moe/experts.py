"""The Experts block: the load of every expert of every MoE layer, and the routers' choices."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import NOT_AVAILABLE, duration, percentage, plain, ratio
from distprof.merge.report import ExpertLayerStats, Report
from distprof.merge.text.blocks.moe.findings import findings
from distprof.merge.text.format.lines import heading, one_line, table
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import join_words
from distprof.rank_names import number_spans

_LAYER_WIDTH = 36
_ALL_UP_TO = 8
_HOTTEST_SHOWN = 4


def experts_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where the model has no MoE layers."""
    if not report.experts:
        return
    yield heading("Experts")
    yield "Tokens that each expert processed, over all ranks and timed steps.  max/mean is 1 when the load is balanced."
    by_ep = any(layer.ep_tokens for layer in report.experts)
    if by_ep:
        yield "ep max/mean compares ep ranks, each with the tokens of all its experts: the largest one sets the time."
    costs = [layer.ep_cost_ns for layer in report.experts if layer.ep_cost_ns is not None]
    if costs:
        yield "ep cost: by how much the own time of the slowest ep rank in the layer exceeds the mean of the ep ranks."
    shown = sorted(
        report.experts, key=lambda layer: -(layer.ep_cost_ns or 0)
    )  # in the order of the model without costs
    ep = [*(["ep max/mean"] if by_ep else []), *(["ep cost"] if costs else [])]
    titles = ["layer", "experts", "steps", "max/mean", *ep, "hottest", "dead", "tokens of expert 0, 1, ..."]
    names = shortened_apart([one_line(layer.name) for layer in report.experts], _LAYER_WIDTH)
    cells = [_cells(layer, names[one_line(layer.name)], by_ep=by_ep, with_cost=bool(costs)) for layer in shown]
    yield from table(titles, cells, left=["layer", titles[-1], "dead"])
    guessed = [names[one_line(layer.name)] for layer in report.experts if layer.guessed]
    if guessed:
        yield f"Found by their weights alone, as no name says that these are experts: {join_words(guessed)}."
    yield from findings(report)
    routed = [layer for layer in report.experts if layer.routed]
    if routed:
        yield ""
        yield "Routers' choices, tokens x top-k; dropped: choices beyond the capacity of their expert."
        chosen = [_routing(layer, names[one_line(layer.name)]) for layer in routed]
        yield from table(["layer", "top-k", "chosen", "dropped", "", "aux loss"], chosen, ["layer"])


def _cells(layer: ExpertLayerStats, name: str, *, by_ep: bool, with_cost: bool) -> list[str]:
    return [
        name,
        str(layer.num_experts),
        str(layer.steps),
        ratio(layer.max_over_mean),
        *([ratio(layer.ep_max_over_mean)] if by_ep else []),
        *([duration(layer.ep_cost_ns)] if with_cost else []),
        NOT_AVAILABLE if layer.hottest is None else str(layer.hottest),
        (number_spans(layer.dead) or "none") if _has_tokens(layer) else NOT_AVAILABLE,
        _tokens(layer),
    ]


def _routing(layer: ExpertLayerStats, name: str) -> list[str]:
    chosen = sum(layer.routed) + layer.lost
    return [
        name,
        NOT_AVAILABLE if layer.top_k is None else str(layer.top_k),
        str(chosen),
        NOT_AVAILABLE if layer.dropped is None else str(layer.dropped),
        "" if layer.dropped is None else percentage(layer.dropped, chosen),
        NOT_AVAILABLE if layer.aux_loss is None else plain(layer.aux_loss),
    ]


def _has_tokens(layer: ExpertLayerStats) -> bool:
    return bool(layer.steps) and any(tokens is not None for tokens in layer.tokens)


def _tokens(layer: ExpertLayerStats) -> str:
    """Returns all loads of a small layer, or the hottest experts of a large one; n/a without a timed step."""
    if not _has_tokens(layer):
        return NOT_AVAILABLE
    if layer.num_experts <= _ALL_UP_TO:
        return " ".join(NOT_AVAILABLE if tokens is None else str(tokens) for tokens in layer.tokens)
    loads = sorted(((tokens, expert) for expert, tokens in enumerate(layer.tokens) if tokens is not None), reverse=True)
    hottest = ", ".join(f"{expert}: {tokens}" for tokens, expert in loads[:_HOTTEST_SHOWN])
    return f"hottest {hottest}, ..."
