"""The figures of the Profile Summary: DeepSpeed's formulas, compared with results computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.reports import Change, changed_report
from support.synthetic import MS

from distprof.merge.report import Summary
from distprof.records import FORWARD, Counts, Parameters, Plan, Record, Step


def summary(change: Change | None = None, **job: Any) -> Summary:
    return changed_report(change, **job).summary


def phases(rank: int, record: Record, **milliseconds: int) -> Record:
    if not isinstance(record, Step):
        return record
    ns = {phase: ms * MS for phase, ms in milliseconds.items()}
    return replace(record, phases_ns=ns, duration_ns=sum(ns.values()))


def test_latencies_are_medians_over_steps_and_then_over_ranks() -> None:
    def change(rank: int, record: Record) -> Record:
        # The forward takes 10, 20 and 90 ms in steps 6, 7 and 8, and 1 ms more on each next rank.
        step = {6: 10, 7: 20, 8: 90}[record.iteration] if isinstance(record, Step) else 0
        return phases(rank, record, forward=step + rank, backward=40, optimizer=5, other=1)

    found = summary(change, dp=4, steps=3)
    forward = found.fwd_latency_ns
    assert forward is not None
    assert (forward.min, forward.median, forward.max) == (20 * MS, 21.5 * MS, 23 * MS)
    assert forward.max_rank == 3
    assert found.iter_latency_ns and found.iter_latency_ns.median == (21.5 + 40 + 5) * MS
    assert found.wall_iteration_ns and found.wall_iteration_ns.median == (21.5 + 40 + 5 + 1) * MS


def test_rates_follow_from_printed_figures() -> None:
    found = summary(lambda rank, r: phases(rank, r, forward=10, backward=30, optimizer=10), dp=2, tp=2)
    flops, backward = found.fwd_flops_per_rank, found.bwd_flops_per_rank
    assert flops is not None and backward is not None and found.recompute_flops_per_rank
    backward += found.recompute_flops_per_rank
    assert found.fwd_flops_per_second == pytest.approx(flops / 0.010)
    assert found.bwd_flops_per_second == pytest.approx(backward / 0.030)
    assert found.fwd_bwd_flops_per_second == pytest.approx((flops + backward) / 0.040)
    assert found.flops_per_second == pytest.approx((flops + backward) / 0.050)
    assert found.fwd_flops_of_model == pytest.approx(2 * flops)
    assert found.params_of_model == pytest.approx(2 * found.params_per_rank.mean if found.params_per_rank else 0)


def test_model_flops_include_flops_outside_of_modules() -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, outside={"forward_flops": 1000}) if isinstance(record, Counts) else record

    found = summary(change, tp=2)
    assert found.fwd_flops_per_rank is not None
    assert found.fwd_flops_of_model == pytest.approx(2 * found.fwd_flops_per_rank)


def test_work_is_the_mean_over_ranks_of_counted_steps() -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, forward_macs=record.forward_macs * (1 + rank)) if isinstance(record, Counts) else record

    once, grown = summary(dp=3), summary(change, dp=3)
    assert once.fwd_macs_per_rank and grown.fwd_macs_per_rank == 2 * once.fwd_macs_per_rank


def test_work_outside_of_modules_counts() -> None:
    def change(rank: int, record: Record) -> Record:
        more = {f"{kind}_flops": amount for kind, amount in (("forward", 10), ("backward", 1000), ("recompute", 7))}
        return replace(record, outside={**more, **outside}) if isinstance(record, Counts) else record

    outside: dict[str, int] = {}
    both = summary(change, dp=3)
    outside = dict.fromkeys(("forward_flops", "backward_flops", "recompute_flops"), 0)
    inside = summary(change, dp=3)
    assert inside.fwd_flops_per_rank and both.fwd_flops_per_rank == inside.fwd_flops_per_rank + 10
    assert inside.bwd_flops_per_rank and both.bwd_flops_per_rank == inside.bwd_flops_per_rank + 1000
    assert inside.recompute_flops_per_rank and both.recompute_flops_per_rank == inside.recompute_flops_per_rank + 7


def test_samples_count_data_parallel_ranks_only() -> None:
    found = summary(lambda rank, r: phases(rank, r, forward=500), dp=2, tp=2, pp=2, batch=8, micro_batches=3)
    assert (found.batch_size_per_rank, found.micro_batches, found.samples_per_iteration) == (8, 3, 48)
    assert found.samples_per_second == pytest.approx(96)


def test_ops_without_a_formula_add_up_over_ranks() -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, uncounted={"b": 1, "a": 1, f"c{rank}": 5}) if isinstance(record, Counts) else record

    assert list(summary(change, dp=2).uncounted_ops.items()) == [("c0", 5), ("c1", 5), ("a", 2), ("b", 2)]


def test_a_complete_run_has_every_figure() -> None:
    assert summary(dp=2).unavailable == {}


MISSING = {
    "counts": (
        *("fwd_macs_per_rank", "fwd_flops_per_rank", "fwd_flops_of_model"),
        *("bwd_macs_per_rank", "bwd_flops_per_rank", "recompute_flops_per_rank"),
    ),
    "rates": ("fwd_flops_per_second", "bwd_flops_per_second", "fwd_bwd_flops_per_second", "flops_per_second"),
    "latencies": (
        *("fwd_latency_ns", "bwd_latency_ns", "step_latency_ns"),
        *("iter_latency_ns", "wall_iteration_ns", "iterations"),
    ),
    "params": ("params_per_rank", "params_of_model", "params_exact", "trainable_params_exact"),
    "throughput": (
        *("samples_per_second", "samples_per_second_at_median"),
        *("tokens_per_iteration", "tokens_per_second"),
    ),
}


def test_missing_figures_have_reasons() -> None:
    def without(*kinds: type[Record]) -> Summary:
        return summary(lambda rank, record: None if isinstance(record, kinds) else record, dp=2)

    counts, steps, params = without(Counts), without(Step), without(Parameters)
    assert counts.unavailable == dict.fromkeys(
        (*MISSING["counts"], *MISSING["rates"]), "the run ended before its counted step"
    )
    assert steps.unavailable == dict.fromkeys(
        (*MISSING["latencies"], *MISSING["rates"], *MISSING["throughput"]),
        "no rank has reached a timed step",
    )
    assert params.unavailable == dict.fromkeys(MISSING["params"], "no rank recorded its parameters")


def test_unavailable_has_exactly_the_fields_that_are_none() -> None:
    changes: list[Change] = [
        lambda rank, record: None if isinstance(record, Counts | Step) else record,
        lambda rank, record: replace(record, batch_size=0, samples=0) if isinstance(record, Step) else record,
        lambda rank, record: phases(rank, record, forward=1),
        lambda rank, record: phases(rank, record, forward=0, backward=0, optimizer=0),
    ]
    for change in changes:
        found = summary(change, dp=2)
        assert found.unavailable
        assert set(found.unavailable) == {name for name, value in vars(found).items() if value is None}


def test_reasons_switched_off_and_not_reached_differ() -> None:
    assert summary(dp=1, counted=False).unavailable["fwd_macs_per_rank"] == "counting was switched off"

    def untimed(rank: int, record: Record) -> Record | None:
        if isinstance(record, Plan):
            return replace(record, timed=0)
        return None if isinstance(record, Step) else record

    assert summary(untimed, dp=1).unavailable["fwd_latency_ns"] == "timing was switched off"


def test_without_training_an_iteration_is_one_forward() -> None:
    found = summary(dp=2, mode=FORWARD)
    assert found.bwd_latency_ns is None and found.step_latency_ns is None
    assert found.unavailable["bwd_latency_ns"] == (
        "only forwards were recorded, each as one iteration: no optimizer had stepped by then"
    )
    assert found.unavailable["bwd_flops_per_second"] == found.unavailable["bwd_latency_ns"]
    assert found.iter_latency_ns == found.fwd_latency_ns
    assert found.flops_per_second == found.fwd_flops_per_second


def test_an_unseen_batch_is_none() -> None:
    found = summary(
        lambda _, r: replace(r, batch_size=0, samples=0, batch_found="") if isinstance(r, Step) else r, dp=2
    )
    assert (found.batch_size_per_rank, found.samples_per_iteration, found.samples_per_second) == (None, None, None)
    assert found.unavailable["samples_per_second"] == "no tensor was seen among the inputs of the model"


def test_unequal_micro_batches_are_noted() -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, micro_batches=4) if rank == 1 and isinstance(record, Counts) else record

    (note,) = changed_report(change, dp=2).run.notes
    assert note.startswith("on rank 1 the counted step had a different number of micro-batches")
