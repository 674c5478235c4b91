"""The module tree, column by column, as the page's scripts unfold it."""

from __future__ import annotations

from typing import Any

from distprof.merge.report import ModuleStats, Report
from distprof.merge.text.format.lines import one_line

#: Fields of a row that are drawn as they are.
_FIELDS = (
    *("parent", "ranks", "params", "calls", "macs", "flops", "forward_ns", "backward_ns"),
    *("forward_self_ns", "backward_self_ns"),
)


def module_tree(report: Report) -> dict[str, Any]:
    """Returns each field as a list over the modules, in depth-first order; empty without modules."""
    modules = report.modules
    if not modules:
        return {}
    columns: dict[str, Any] = {name: [getattr(module, name) for module in modules] for name in _FIELDS}
    return {
        **columns,
        "label": [one_line(module.label) for module in modules],
        "name": [_own_name(module) for module in modules],
        "class": [one_line(module.class_name) for module in modules],
        "repr": [one_line(module.extra_repr) for module in modules],
        "recorded": len(report.ranks),
        "iteration_ns": report.summary.iterations.median_ns if report.summary.iterations else None,
    }


def _own_name(module: ModuleStats) -> str:
    """Returns the name in the parent; the label for a root and for a wrapper."""
    if module.parent < 0 or module.wrapper or not module.name:
        return one_line(module.label)
    return one_line(module.name.rpartition(".")[2])
