"""Work and times of every module: exact sums over subtrees, means and medians over the ranks that have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reports import Change, changed_report
from support.synthetic import WIDTH

from distprof.merge.report import ModuleStats
from distprof.records import FORWARD, Counts, Record, Step


def modules(change: Change | None = None, **job: Any) -> dict[str, ModuleStats]:
    return {module.label: module for module in in_order(change, **job)}


def in_order(change: Change | None = None, **job: Any) -> tuple[ModuleStats, ...]:
    return changed_report(change, **job).modules


@settings(max_examples=20)
@given(st.integers(1, 4), st.sampled_from([{"dp": 1}, {"dp": 2, "tp": 2}, {"dp": 2, "ep": 2}]), st.integers(0, 5))
def test_inclusive_work_is_self_work_plus_children(layers: int, layout: dict[str, Any], seed: int) -> None:
    """On ranks that all have the same modules, means keep sums."""
    found = in_order(layers=layers, steps=1, seed=seed, **layout)
    children = [0.0] * len(found)
    for index, module in reversed(list(enumerate(found))):
        assert module.macs is not None and module.self_macs is not None
        assert module.macs == module.self_macs + children[index]
        if module.parent >= 0:
            children[module.parent] += module.macs


def test_inclusive_time_of_one_step_is_the_sum_of_self_times() -> None:
    found = in_order(dp=1, layers=3, steps=1)
    for times, own in (("forward_ns", "forward_self_ns"), ("backward_ns", "backward_self_ns")):
        sums = [getattr(module, own) or 0.0 for module in found]
        for index in range(len(found) - 1, 0, -1):
            sums[found[index].parent] += sums[index]
        assert [getattr(module, times) for module in found] == pytest.approx(sums, rel=1e-7)  # float32


def test_inclusive_time_is_the_median_of_sums() -> None:
    def change(rank: int, record: Record) -> Record:
        # Two modules are slow in alternating steps: 9 + 1, 1 + 9, 9 + 1 ns.
        if not isinstance(record, Step):
            return record
        times = np.zeros_like(record.forward_ns)
        times[2:4] = (9, 1) if record.iteration % 2 else (1, 9)
        return replace(record, forward_ns=times)

    found = in_order(change, dp=1, steps=3)
    assert found[0].forward_ns == 10


def test_times_are_medians_over_ranks_with_the_module() -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, forward_ns=record.forward_ns * 0 + 10**rank) if isinstance(record, Step) else record

    found = modules(change, dp=3, pp=2, layers=2)  # ranks 0-2: stage 0 with blocks.0, ranks 3-5: stage 1 with blocks.1
    assert (found["blocks.0.ln1"].ranks, found["blocks.0.ln1"].forward_self_ns) == (3, 10.0)
    assert (found["blocks.1.ln1"].ranks, found["blocks.1.ln1"].forward_self_ns) == (3, 10_000.0)
    assert (found["GPT"].ranks, found["GPT"].forward_self_ns) == (6, (100 + 1000) / 2)


def test_a_pipeline_has_one_tree() -> None:
    found = in_order(dp=1, pp=2, layers=4)
    assert [module.label for module in found if module.depth == 3] == [f"blocks.{n}" for n in range(4)]
    assert [module.label for module in found if module.depth == 2] == ["embed", "blocks", "norm", "head"]
    assert all(found[module.parent].depth == module.depth - 1 for module in found if module.parent >= 0)


def test_work_is_the_mean_over_ranks() -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, forward_macs=record.forward_macs * (1 + rank)) if isinstance(record, Counts) else record

    once, grown = modules(dp=3), modules(change, dp=3)
    assert once["head"].macs and grown["head"].macs == 2 * once["head"].macs


def test_parameters_and_calls() -> None:
    found = modules(dp=2, tp=2, micro_batches=3)
    assert (found["norm"].params, found["norm"].own_params) == (2 * WIDTH, 2 * WIDTH)
    assert (found["blocks.0.mlp"].params, found["blocks.0.mlp"].own_params) == (8 * WIDTH**2 / 2, 0)
    assert found["norm"].calls == 3


def test_an_uncalled_module_has_no_self_time() -> None:
    blocks = modules(dp=2)["blocks"]
    assert (blocks.calls, blocks.forward_self_ns, blocks.backward_self_ns) == (0, None, None)
    assert blocks.forward_ns is not None and blocks.forward_ns > 0


def test_an_uncalled_subtree_has_no_time() -> None:
    def change(rank: int, record: Record) -> Record:
        """Changes the records to those of a compiled region, of which only the outermost module is called."""
        if not isinstance(record, Step):
            return record
        inner = np.arange(len(record.calls)) > 1
        return replace(record, calls=np.where(inner, 0, record.calls), forward_ns=np.where(inner, 0, record.forward_ns))

    found = modules(change, dp=2)
    assert found["GPT"].forward_ns is not None
    assert found["blocks.0"].forward_ns is None and found["head"].forward_self_ns is None


def test_unrecorded_values_are_none() -> None:
    not_counted, not_timed = (
        modules(dp=2, counted=False)["head"],
        modules(lambda rank, record: None if isinstance(record, Step) else record, dp=2)["head"],
    )
    assert (not_counted.macs, not_counted.flops, not_counted.self_macs) == (None, None, None)
    assert not_counted.calls == 1
    assert (not_timed.forward_ns, not_timed.backward_ns, not_timed.forward_self_ns) == (None, None, None)
    assert not_timed.calls == 1
    assert modules(dp=2, mode=FORWARD)["head"].backward_ns is None


@pytest.mark.parametrize("known", [1, 5])
def test_later_rows_have_zeros_in_shorter_arrays(known: int) -> None:
    def change(rank: int, record: Record) -> Record:
        return replace(record, forward_macs=record.forward_macs[:known]) if isinstance(record, Counts) else record

    found = in_order(change, dp=1)
    assert all(module.self_macs == 0 for module in found[known:])
