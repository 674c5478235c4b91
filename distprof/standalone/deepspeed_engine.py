"""Reads the job around one process from a DeepSpeed engine: the rank, sizes of parallelism, and the engine's timers.

Only attributes of the engine are used: DeepSpeed need not be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from distprof.errors import UsageError
from distprof.merge.report import Report, Spread, Summary
from distprof.rank.identity import Identity
from distprof.records import GROUP, Topology
from distprof.topology.axes import declared_topology

#: DeepSpeed's timer names -> the latency that each measures.
_TIMERS = {"fwd": "fwd_latency_ns", "bwd": "bwd_latency_ns", "step": "step_latency_ns"}
_NS_PER_MS = 1e6
_NOT_WHOLE = "the profile is of a part of it, and the other latencies are those of the engine's timers"


def identity_of(engine: Any) -> Identity:
    """Returns the identity of the engine's process."""
    rank, world = int(engine.global_rank), int(engine.world_size)
    local = int(getattr(engine, "local_rank", rank))
    return Identity(rank, world, local_rank=max(local, 0), local_world_size=world, node_rank=0, claim=GROUP)


def topology_of(engine: Any) -> Iterator[Topology]:
    """Yields the data and model parallel sizes, unless they do not multiply to the world size."""
    # Under sequence parallelism the engine has only the size of both together.
    data = engine.dp_world_size or engine.seq_dp_world_size
    try:
        sizes = {"dp": int(data), "tp": int(engine.mp_world_size)}
        yield declared_topology(sizes, {}, int(engine.global_rank), int(engine.world_size))
    except UsageError:
        return


def with_engine(report: Report, engine: Any, recompute_fwd_factor: float) -> Report:
    """Returns the report with the engine's batch size and, with ``wall_clock_breakdown``, its latencies.

    If backward was not counted, it is then estimated by DeepSpeed's formula: 2 x forward, and ``recompute_fwd_factor``
    x forward for recomputation.  A note says so.
    """
    size = float(engine.train_micro_batch_size_per_gpu())
    summary = replace(report.summary, batch_size_per_rank=size, batch_found="the engine's own")
    notes = report.run.notes
    if engine.wall_clock_breakdown():
        summary = replace(summary, **_latencies(engine))
        if summary.bwd_flops_per_rank is None and summary.fwd_flops_per_rank is not None:
            summary = _with_estimated_backward(summary, summary.fwd_flops_per_rank, recompute_fwd_factor)
            notes = (*notes, _estimate_note(report.run.unit, recompute_fwd_factor))
        summary = _with_rates(summary, int(engine.world_size) // int(engine.mp_world_size))
    why = {"wall_iteration_ns": _NOT_WHOLE, **summary.unavailable}
    missing = {name: reason for name, reason in why.items() if getattr(summary, name) is None}
    return replace(report, summary=replace(summary, unavailable=missing), run=replace(report.run, notes=notes))


def _latencies(engine: Any) -> dict[str, Any]:
    rank = int(engine.global_rank)
    found = {field: float(engine.timers(name).elapsed(False)) * _NS_PER_MS for name, field in _TIMERS.items()}
    found["iter_latency_ns"] = sum(found.values())
    return {field: _spread(value, rank) for field, value in found.items() if value}


def _spread(value: float, rank: int) -> Spread:
    return Spread(min=value, median=value, max=value, mean=value, max_rank=rank)


def _with_estimated_backward(summary: Summary, forward: float, factor: float) -> Summary:
    macs = summary.fwd_macs_per_rank
    return replace(
        summary,
        bwd_macs_per_rank=None if macs is None else 2 * macs,
        bwd_flops_per_rank=2 * forward,
        recompute_flops_per_rank=factor * forward,
    )


def _estimate_note(unit: str, factor: float) -> str:
    again = f", recomputed flops as {factor:g} * fwd flops (recompute_fwd_factor)" if factor else ""
    return f"backward was not counted: bwd flops per {unit} are taken as 2 * fwd flops per {unit}{again}"


def _with_rates(summary: Summary, data_parallel: int) -> Summary:
    """Returns the summary with rates computed from the engine's latencies."""
    forward = summary.fwd_flops_per_rank
    backward = summary.bwd_flops_per_rank
    behind = None if backward is None else backward + (summary.recompute_flops_per_rank or 0)
    whole = None if forward is None or behind is None else forward + behind
    samples = (summary.batch_size_per_rank or 0) * data_parallel
    fwd, bwd = summary.fwd_latency_ns, summary.bwd_latency_ns
    return replace(
        summary,
        fwd_flops_per_second=_rate(forward, fwd),
        bwd_flops_per_second=_rate(behind, bwd),
        fwd_bwd_flops_per_second=_rate(whole, fwd, bwd),
        flops_per_second=_rate(whole, summary.iter_latency_ns),
        samples_per_second=_rate(samples, summary.iter_latency_ns),
        samples_per_second_at_median=None,
        tokens_per_second=None,
        iterations=None,
        wall_iteration_ns=None,  # the profile began and ended inside the iteration
    )


def _rate(work: float | None, *latencies: Spread | None) -> float | None:
    known = [latency.median for latency in latencies if latency is not None]
    if work is None or len(known) < len(latencies) or not sum(known):
        return None
    return work / (sum(known) / 1e9)
