"""The tables of modules: over the ranks, and rank by rank."""

from __future__ import annotations

import numpy as np

from distprof.merge.export.tables.table import Column, Maker, Table, make_table
from distprof.merge.report import ModuleStats, Report


def modules_table(report: Report) -> Table:
    """Returns the table of modules."""
    makers: list[Maker[ModuleStats]] = [
        Maker("module", "label, unique in the report", lambda row: row.label),
        Maker("name", "name in the model"),
        Maker("class_name", "its class"),
        Maker("root", "number of the model"),
        Maker("stage", "pipeline stage, where stages have different modules of this name"),
        Maker("parent", "label of the module around it, empty for a model", lambda row: _parent(report, row)),
        Maker("depth", "0 for a model"),
        Maker("wrapper", "whether it only wraps another module"),
        Maker("ranks", "how many ranks have it"),
        Maker("params", "parameters with those of the modules inside, mean over its ranks", counts=True),
        Maker("own_params", "parameters of its own", counts=True),
        Maker("calls", "calls in one iteration", counts=True),
        Maker("macs", "MACs of forward with the modules inside, mean over its ranks", counts=True),
        Maker("flops", "flops of forward with the modules inside", counts=True),
        Maker("self_macs", "MACs of forward without the modules inside", counts=True),
        Maker("bwd_macs", "MACs of backward with the modules inside", counts=True),
        Maker("bwd_flops", "flops of backward with the modules inside", counts=True),
        Maker("recompute_flops", "flops that run again in backward, with the modules inside", counts=True),
        Maker("forward_ns", "time of forward with the modules inside, median over its ranks"),
        Maker("backward_ns", "time of backward with the modules inside"),
        Maker("forward_self_ns", "time of forward without the modules inside"),
        Maker("backward_self_ns", "time of backward without the modules inside"),
    ]
    return make_table("modules", "one module, over the ranks that have it", report.modules, makers)


def _parent(report: Report, row: ModuleStats) -> str | None:
    return report.modules[row.parent].label if row.parent >= 0 else None


def module_times_table(report: Report) -> Table:
    """Returns the table of all times that were measured, rank by rank."""
    times = report.module_times
    measured = ~np.isnan(times.forward_ns) | ~np.isnan(times.backward_ns)
    columns, modules = np.nonzero(measured.T)
    labels = [row.label for row in report.modules]

    def column(name: str, text: str, table: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Column:
        return Column(name, text, table[modules, columns])

    return Table(
        "module_times",
        "one module on one rank, where it took time",
        (
            Column("rank", "number of the rank", np.array(times.ranks, np.int64)[columns].tolist()),
            Column("module", "label of the module", [labels[module] for module in modules.tolist()]),
            column("forward_ns", "time of forward with the modules inside, median", times.forward_ns),
            column("backward_ns", "time of backward with the modules inside, median", times.backward_ns),
            column("forward_self_ns", "time of forward without the modules inside, median", times.forward_self_ns),
            column("backward_self_ns", "time of backward without the modules inside, median", times.backward_self_ns),
        ),
    )
