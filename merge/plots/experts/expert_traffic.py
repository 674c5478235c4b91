"""A map of source ranks x expert ranks: the tokens that each rank sends to the experts of each other one."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from distprof.merge.plots import style
from distprof.merge.quantities import byte_size
from distprof.merge.report import ExpertTraffic, Report
from distprof.merge.text.blocks.moe.worst import worst_words

_VALUES_UP_TO = 8  # ranks


def draw(report: Report) -> Figure | None:
    """Returns the map; None where routing or the places of experts are not known, or there are more than 256 ranks."""
    found = report.expert_traffic
    if found is None or not found.tokens:
        return None
    tokens = np.array(found.tokens)
    side = min(9.0, max(4.6, 3.0 + 0.3 * len(tokens)))
    figure, axes = style.new_figure(side + 1.2, side)
    limits = Normalize(0, float(tokens.max()))
    style.heat_map(figure, axes, np.where(tokens > 0, tokens, np.nan), ("YlGnBu", limits), "tokens in an iteration")
    if len(tokens) <= _VALUES_UP_TO:
        for (row, column), value in np.ndenumerate(tokens):
            if value:
                colour = "white" if limits(value) > 1 - style.READABLE else style.INK
                axes.text(column, row, f"{value:,.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    style.rank_ticks(axes.xaxis, found.ranks)
    style.rank_ticks(axes.yaxis, found.ranks)
    axes.set(xlabel="rank of the expert (grey: no token)", ylabel="rank of the token")
    style.title(axes, "Traffic to experts", report, f"{traffic_words(found)}; {worst_words(report)}")
    return figure


def traffic_words(found: ExpertTraffic) -> str:
    """Returns how much of the tokens leaves its rank and its host, and the bytes of it."""
    sent = "" if found.bytes is None else f", {byte_size(found.bytes)} there and back in an iteration"
    return f"{found.elsewhere_share:.0%} of tokens leave their rank, {found.other_host_share:.0%} their host{sent}"
