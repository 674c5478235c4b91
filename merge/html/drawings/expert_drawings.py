"""What the page draws of MoE layers: tables of balance and cost, maps of loads and traffic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.html.drawings.model import (
    COUNT,
    NUMBER,
    RATIO,
    SHARE,
    TIME,
    Column,
    HeatMap,
    Table,
    Value,
)
from distprof.merge.report import OVERLOADED, ExpertLayerStats, LoadMetrics, Report
from distprof.merge.text.blocks.moe.findings import cause_words
from distprof.merge.text.blocks.moe.worst import worst_sentence
from distprof.merge.text.format.lines import one_line
from distprof.rank_names import number_spans

_LEAST_SPAN = 0.25  # of the colours of ep ranks, on either side of the mean


def experts_table(report: Report) -> Table:
    """Returns the layers, the worst first."""
    shown = _worst_first(report)
    more = [(column, values) for column, values in _columns_if_known(shown) if any(values)]
    columns = (
        Column("layer"),
        Column("ep max/mean", RATIO, "ep", bar=True),
        Column("cost", TIME, bar=True, why="waits are not known, or experts are not distributed"),
        Column("max/mean", RATIO, "max/mean", bar=True),
        Column("hottest expert", COUNT),
        Column("dead experts", term="dead expert"),
        Column("dropped", SHARE, "capacity"),
        Column("equal loads would save", TIME),
        *(column for column, _ in more),
        Column("experts", COUNT),
        Column("top-k", COUNT, "top-k"),
        Column("steps", COUNT),
        Column("auxiliary loss", NUMBER),
    )
    hot = report.verdict.expert
    marked = [place for place, layer in enumerate(shown) if hot.finding == OVERLOADED and layer.name == hot.layer]
    cells = [_layer_cells(layer, [values[place] for _, values in more]) for place, layer in enumerate(shown)]
    return Table("MoE layers", columns, cells, marked)


def _columns_if_known(layers: Sequence[ExpertLayerStats]) -> Iterator[tuple[Column, Sequence[Value]]]:
    """Yields columns that the table has if a layer has a value."""
    empty, routers = [layer.empty for layer in layers], [layer.counted for layer in layers]
    yield Column("empty slots", SHARE), [None if one is None else one.share for one in empty]
    yield Column("cost of empty slots", TIME), [None if one is None else one.cost_ns for one in empty]
    yield Column("padding", SHARE), [None if one is None else one.padding_share for one in routers]
    yield Column("router entropy", RATIO), [None if one is None else one.entropy for one in routers]
    yield Column("z loss", NUMBER), [None if one is None else one.z_loss for one in routers]
    yield Column("why ep ranks differ", wide=True), list(map(cause_words, layers))


def _layer_cells(layer: ExpertLayerStats, more: Sequence[Value]) -> list[Value]:
    dead = (number_spans(layer.dead) or "none") if layer.max_over_mean is not None else None
    return [
        one_line(layer.name), layer.ep_max_over_mean, layer.ep_cost_ns, layer.max_over_mean, layer.hottest, dead,
        layer.drop_rate, layer.load_cost_ns, *more, layer.num_experts, layer.top_k, layer.steps,
        layer.aux_loss,
    ]  # fmt: skip


def balance_table(report: Report) -> Table:
    """Returns all measures of balance, of experts and of ep ranks, one row for each layer and kind."""
    columns = (
        Column("layer"),
        Column("of"),
        Column("max/mean", RATIO, "max/mean", bar=True),
        Column("MaxVio", RATIO),
        Column("CV", RATIO),
        Column("entropy", RATIO),
        Column("Gini", RATIO),
        Column("hottest", COUNT),
        Column("coldest", COUNT),
    )
    rows: list[list[Value]] = []
    for layer in _worst_first(report):
        for what, found in (("experts", layer.load), ("ep ranks", layer.ep_load)):
            if found is not None:
                rows.append([one_line(layer.name), what, *_measures(found)])
    return Table("Measures of balance", columns, rows)


def _measures(found: LoadMetrics) -> list[Value]:
    return [
        found.max_over_mean, found.max_violation, found.cv, found.entropy, found.gini, found.hottest, found.coldest,
    ]  # fmt: skip


def _worst_first(report: Report) -> list[ExpertLayerStats]:
    summary = report.expert_summary
    return [report.experts[place] for place in summary.worst_first] if summary is not None else []


def load_map(report: Report) -> HeatMap | None:
    """Returns layers x experts."""
    layers = [layer for layer in report.experts if any(layer.tokens)]
    if not layers:
        return None
    values = _relative([layer.tokens for layer in layers])
    largest = max(value for row in values for value in row if value is not None)
    verdict = report.verdict.expert
    names = [layer.name for layer in layers]
    named = verdict.finding == OVERLOADED and verdict.layer in names
    starts = report.expert_summary.ep_starts if report.expert_summary is not None else ()
    return HeatMap(
        title="Load of every expert",
        row_title="layer",
        rows=list(map(one_line, names)),
        column_title="expert",
        columns=[str(number) for number in range(len(values[0]))],
        values=values,
        kind=RATIO,
        value_title="load / mean of its layer",
        scale="diverging",
        middle=1.0,
        limit=max(largest - 1, verdict.overload - 1),
        marked=[(names.index(verdict.layer), verdict.expert or 0)] if named else [],
        note=f"From {verdict.overload:g} x the mean on, an expert is called overloaded. {worst_sentence(report)}",
        grey="no recorded rank hosts this expert, or its tokens were not counted",
        zero="no token",
        separators=starts,
        separator_title="ep ranks" if starts else "",
    )


def ep_map(report: Report) -> HeatMap | None:
    """Returns layers x ep ranks."""
    layers = [layer for layer in report.experts if any(layer.ep_tokens)]
    if not layers:
        return None
    values = _relative([layer.ep_tokens for layer in layers])
    return HeatMap(
        title="Load of every ep rank",
        row_title="layer",
        rows=[one_line(layer.name) for layer in layers],
        column_title="ep rank",
        columns=[str(number) for number in range(len(values[0]))],
        values=values,
        kind=RATIO,
        value_title="tokens / mean of the layer",
        scale="diverging",
        middle=1.0,
        limit=max(_LEAST_SPAN, *(abs(value - 1) for row in values for value in row if value is not None)),
        marked=[],
        note=f"A layer waits for its ep rank with the most tokens. {worst_sentence(report)}",
        grey="no such ep rank, or its tokens were not counted",
    )


def traffic_map(report: Report) -> HeatMap | None:
    """Returns ranks of tokens x ranks of experts."""
    found = report.expert_traffic
    if found is None or not found.tokens:
        return None
    names = list(map(str, found.ranks))
    every = [value for row in found.tokens for value in row]
    mean = sum(every) / len(every)
    return HeatMap(
        title="Traffic to experts",
        row_title="rank of the token",
        rows=names,
        column_title="rank of the expert",
        columns=names,
        values=found.tokens,
        kind=NUMBER,
        value_title="tokens in an iteration",
        scale="diverging",
        middle=mean,
        limit=max(every) - mean or 1.0,
        note="Colours compare with the mean of all. "
        f"{found.elsewhere_share:.0%} of the tokens leave their rank, {found.other_host_share:.0%} their host. "
        f"{worst_sentence(report)}",
    )


def _relative(loads: Sequence[Sequence[int | None]]) -> list[list[float | None]]:
    """Returns loads / mean of the known ones by layer, as wide as the widest layer."""
    widest = max(map(len, loads))
    found: list[list[float | None]] = []
    for own in loads:
        known = [load for load in own if load is not None]
        mean = sum(known) / len(known)
        found.append([*(None if load is None else load / mean for load in own), *[None] * (widest - len(own))])
    return found
