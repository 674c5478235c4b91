"""The table of MoE layers: how unequal the loads of the experts and ep ranks of each layer are."""

from __future__ import annotations

from collections.abc import Callable

from distprof.merge.export.tables.table import Maker, RowTable
from distprof.merge.report import ExpertLayerStats, LoadMetrics

_Layer = ExpertLayerStats


def _load(what: str, pick: Callable[[_Layer], LoadMetrics | None], prefix: str = "") -> tuple[Maker[_Layer], ...]:
    """Returns the columns of all measures of balance."""

    def measure(name: str) -> Callable[[_Layer], float | None]:
        def value(layer: _Layer) -> float | None:
            load = pick(layer)
            found: float | None = None if load is None else getattr(load, name)
            return found

        return value

    return (
        Maker(f"{prefix}max_over_mean", f"largest / mean load of {what}, 1 = balanced", measure("max_over_mean")),
        Maker(f"{prefix}max_violation", f"MaxVio of {what}, 0 = balanced", measure("max_violation")),
        Maker(f"{prefix}cv", f"standard deviation / mean load of {what}, 0 = balanced", measure("cv")),
        Maker(f"{prefix}entropy", f"normalised entropy of the loads of {what}, 1 = balanced", measure("entropy")),
        Maker(f"{prefix}gini", f"Gini coefficient of the loads of {what}, 0 = balanced", measure("gini")),
        Maker(f"{prefix}hottest", f"of {what}, the one with the largest load", measure("hottest")),
        Maker(f"{prefix}coldest", f"of {what}, the one with the smallest load", measure("coldest")),
    )


MOE_LAYERS: RowTable[_Layer] = RowTable(
    "moe_layers",
    "one MoE layer, over all ranks and timed steps",
    lambda report: report.experts,
    (
        Maker("layer", "its module", lambda layer: layer.name),
        Maker("experts", "experts of the layer, on all ranks", lambda layer: layer.num_experts),
        Maker("steps", "timed iterations whose tokens are summed", lambda layer: layer.steps),
        Maker("cost_ns", "largest - mean own time of the ep ranks", lambda layer: layer.ep_cost_ns),
        Maker("load_cost_ns", "what equal loads of the ep ranks would save", lambda layer: layer.load_cost_ns),
        *_load("ep ranks", lambda layer: layer.ep_load, "ep_"),
        *_load("experts", lambda layer: layer.load),
        Maker(
            "dead",
            "experts without a token",
            lambda layer: None if set(layer.tokens) <= {None} else len(layer.dead),
        ),
        Maker("drop_rate", "dropped / all choices of routers", lambda layer: layer.drop_rate),
    ),
)
