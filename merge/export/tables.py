"""The tables of the report as plain data: the CSV and Parquet files, the page and data frames are made of them.

    Report -> all_tables -> Table (columns) -> table_files (CSV, Parquet)

Times, work and memory are those of one iteration; medians are over the timed iterations, then over ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import NamedTuple

import numpy as np

from distprof.merge.export.table import Column, Maker, Table, make_table
from distprof.merge.report import HOLDINGS, CollectiveRow, ExpertLayerStats, ModuleStats, RankRow, Report, SkewRow
from distprof.records import PHASES


def all_tables(report: Report) -> dict[str, Table]:
    """Returns all tables by name."""
    return {name: make(report) for name, make in _MAKERS.items()}


def make_one(report: Report, name: str) -> Table:
    """Returns the table with this name, one of :data:`NAMES`."""
    return _MAKERS[name](report)


def _ranks(report: Report) -> Table:
    waits = {wait.rank: wait for wait in report.collectives.waits}
    named = {straggler.rank for straggler in report.verdict.ranks.named}

    def wait_of(row: RankRow, field: str) -> float | None:
        return getattr(waits[row.rank], field) if row.rank in waits else None

    makers: list[Maker[RankRow]] = [
        Maker("rank", "number of the rank"),
        Maker("host", "name of its machine"),
        *(_coordinate(axis) for axis in report.topology.sizes),
        Maker("cohort", "number of its cohort: the ranks that do equal work"),
        Maker("named", "whether the verdict names it", lambda row: row.rank in named),
        Maker("complete", "whether it recorded the whole window"),
        Maker("timed_steps", "timed iterations that it recorded", lambda row: row.steps),
        Maker("iteration_ns", "wall time, median"),
        *(_phase(phase) for phase in PHASES),
        Maker("wait_ns", "wait in collectives, median", lambda row: wait_of(row, "wait_ns")),
        Maker("lag_ns", "how much later than the median member it enters collectives", lambda r: wait_of(r, "lag_ns")),
        Maker("last_arrivals", "in how many collectives it arrived last", lambda row: wait_of(row, "last")),
        Maker("parameter_bytes", "parameters between two iterations, local"),
        Maker("gradient_bytes", "gradients between two iterations, local"),
        Maker("optimizer_bytes", "optimizer state between two iterations, local"),
        Maker("peak_memory_bytes", "largest memory"),
        Maker("memory_source", "how the largest memory was measured"),
        Maker("params", "number of parameters that it holds or shares", counts=True),
        Maker("fwd_macs", "MACs of forward"),
        Maker("mfu", "model flops utilization, as a share of 1"),
        Maker("hfu", "hardware flops utilization, as a share of 1"),
    ]
    return make_table("ranks", "one recorded rank", report.ranks, makers)


def _coordinate(axis: str) -> Maker[RankRow]:
    return Maker(axis, f"coordinate on {axis}", lambda row: row.coordinates.get(axis))


def _phase(phase: str) -> Maker[RankRow]:
    return Maker(f"{phase}_ns", f"phase {phase}, median; empty: not seen", lambda row: row.phases_ns.get(phase))


class _Step(NamedTuple):
    rank: int
    iteration: int
    duration_ns: int
    processor_wait_ns: float | None


def _steps(report: Report) -> Table:
    rows = (
        _Step(row.rank, iteration, duration, waited)
        for row in report.ranks
        for iteration, duration, waited in zip(
            row.step_iterations, row.step_durations_ns, row.step_processor_waits_ns, strict=True
        )
    )
    makers: list[Maker[_Step]] = [
        Maker("rank", "number of the rank"),
        Maker("iteration", "number of the iteration, from 0"),
        Maker("duration_ns", "wall time"),
        Maker("processor_wait_ns", "how long the rank was ready while no processor was free"),
    ]
    return make_table("steps", "one timed iteration of one rank", rows, makers)


def _modules(report: Report) -> Table:
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


def _module_times(report: Report) -> Table:
    """Returns the table of all times that were measured, rank by rank."""
    times = report.module_times
    measured = ~np.isnan(times.forward_ns) | ~np.isnan(times.backward_ns)
    columns, modules = np.nonzero(measured.T)
    labels = [row.label for row in report.modules]

    def column(name: str, text: str, table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Column:
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


class _Expert(NamedTuple):
    layer: ExpertLayerStats
    number: int

    @property
    def tokens(self) -> int | None:
        return self.layer.tokens[self.number]

    @property
    def over_mean(self) -> float | None:
        known = [tokens for tokens in self.layer.tokens if tokens is not None]
        if self.tokens is None or len(known) < len(self.layer.tokens) or not sum(known):
            return None
        return self.tokens * len(known) / sum(known)


def _experts(report: Report) -> Table:
    rows = (_Expert(layer, number) for layer in report.experts for number in range(layer.num_experts))
    makers: list[Maker[_Expert]] = [
        Maker("layer", "name of the MoE layer", lambda row: row.layer.name),
        Maker("expert", "number of the expert in the layer", lambda row: row.number),
        Maker("ranks", "ranks that host it, with spaces between", lambda row: " ".join(map(str, _hosts(row)))),
        Maker("steps", "timed iterations of the load", lambda row: row.layer.steps),
        Maker("tokens", "tokens that it processed in all of these"),
        Maker("tokens_over_mean", "tokens / mean of the layer's experts", lambda row: row.over_mean),
        Maker("routed_tokens", "tokens that routers chose it for", lambda row: _item(row.layer.routed, row.number)),
        Maker("dead", "whether it got no token", lambda row: row.number in row.layer.dead),
    ]
    return make_table("experts", "one expert of one MoE layer, over all ranks and timed iterations", rows, makers)


def _hosts(row: _Expert) -> tuple[int, ...]:
    return row.layer.expert_ranks[row.number]


def _item(values: tuple[int, ...], number: int) -> int | None:
    return values[number] if values else None


def _skew(report: Report) -> Table:
    makers: list[Maker[SkewRow]] = [
        Maker("subject", "phase, or label of a module"),
        Maker("phase", "iteration, or one of its phases"),
        Maker("min_ns", "the least over ranks"),
        Maker("median_ns", "the median over ranks"),
        Maker("max_ns", "the largest over ranks"),
        Maker("max_over_median", "the largest / the median", lambda row: row.ratio),
        Maker("excess_ns", "the largest of (rank - median of the others of its cohort)"),
        Maker("slowest_rank", "the rank of this excess"),
        Maker("ranks", "ranks with a time"),
        Maker("wait_ns", "wait in collectives, median over ranks; the other times are without it"),
    ]
    rows = (*report.skew.phases, *report.skew.modules)
    return make_table("skew", "one phase, or one module in one phase: its self time over ranks", rows, makers)


def _collectives(report: Report) -> Table:
    makers: list[Maker[CollectiveRow]] = [
        Maker("kind", "axis of the groups"),
        Maker("op", "all_reduce, ..."),
        Maker("groups", "number of groups"),
        Maker("members", "ranks of the largest group"),
        Maker("calls", "calls of one rank in one iteration", counts=True),
        Maker("bytes", "of the larger of input and output, in one iteration"),
        Maker("own_ns", "the rest of the turns in which ranks wait"),
        Maker("wait_ns", "wait for the last member"),
        Maker("transfer_ns", "from the arrival of the last member to completion"),
        Maker("bytes_per_second", "bytes / transfer"),
        Maker("share", "share of wait and transfer in the iteration, of 1"),
    ]
    text = "one op in groups of one kind, means over its ranks and the timed iterations"
    return make_table("collectives", text, report.collectives.rows, makers)


class _Holding(NamedTuple):
    rank: int
    what: str
    bytes: int
    cohort_median_bytes: float


def _memory(report: Report) -> Table:
    makers: list[Maker[_Holding]] = [
        Maker("rank", "number of the rank"),
        Maker("what", ", ".join(HOLDINGS)),
        Maker("bytes", "held by the rank"),
        Maker("cohort_median_bytes", "median of its cohort, the rank included"),
    ]
    return make_table("memory", "one kind of memory on one rank, where it was measured", _holdings(report), makers)


def _holdings(report: Report) -> Iterator[_Holding]:
    for what, name in HOLDINGS.items():
        held: dict[int, dict[int, int]] = {}  # by cohort and rank
        for row in report.ranks:
            if getattr(row, name) is not None:
                held.setdefault(row.cohort, {})[row.rank] = getattr(row, name)
        middle = {cohort: float(median(own.values())) for cohort, own in held.items()}
        for row in report.ranks:
            if row.rank in held.get(row.cohort, {}):
                yield _Holding(row.rank, what, held[row.cohort][row.rank], middle[row.cohort])


_MAKERS: Mapping[str, Callable[[Report], Table]] = {
    "ranks": _ranks,
    "steps": _steps,
    "modules": _modules,
    "module_times": _module_times,
    "experts": _experts,
    "skew": _skew,
    "collectives": _collectives,
    "memory": _memory,
}
#: The names of all tables, in their order.
NAMES = tuple(_MAKERS)
