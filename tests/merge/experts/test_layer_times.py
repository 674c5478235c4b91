"""Where the time of a MoE layer goes, against the times of the synthetic run: backward takes twice as long."""

from __future__ import annotations

import numpy as np
import pytest
from support.reports import report_of

from distprof.merge.experts.layer_times import _parts
from distprof.merge.text.blocks.moe.findings import findings

MS = 1e6
ROUTER_MS, MLP_MS, SHARED_MS, OWN_MS = 0.2, 0.1 + 0.5 + 0.5, 0.5, 1.0


def test_the_times_of_a_layer_are_those_of_its_router_its_experts_and_its_own_code() -> None:
    report = report_of(dp=4, ep=2, layers=4, experts=8, noise=0, shared_expert=True, steps=2)
    assert [layer.times is not None for layer in report.experts] == [True, True]
    for layer in report.experts:
        assert layer.times is not None
        found = [layer.times.gate_ns, layer.times.experts_ns, layer.times.shared_ns, layer.times.rest_ns]
        assert found == pytest.approx([3 * ms * MS for ms in (ROUTER_MS, 4 * MLP_MS, SHARED_MS, OWN_MS)], rel=1e-4)


def test_what_a_layer_lacks_has_no_time() -> None:
    (plain,) = report_of(dp=1, experts=4, noise=0, steps=1).experts
    assert plain.times is not None and plain.times.shared_ns is None
    (untimed,) = report_of(dp=1, experts=4, steps=0).experts
    assert untimed.times is None


def test_a_module_without_parameters_belongs_to_its_parent_and_mixed_ones_to_the_layer() -> None:
    """Module 1 is a layer, with a wrapper (2) around router (3) and experts (4), which have an activation (5)."""
    bits = np.array([8, 0, 0, 1, 2, 0, 8])
    layer_of = np.array([-1, 1, 1, 1, 1, 1, -1])
    assert _parts(bits, layer_of, [-1, 0, 1, 2, 2, 4, 0]).tolist() == [3, 3, 3, 0, 1, 1, 3]


def test_experts_whose_weights_are_the_layer_s_own_are_not_told_apart() -> None:
    assert _parts(np.array([2, 1]), np.array([0, 0]), [-1, 0]).tolist() == [3, 0]


def test_the_line_of_the_worst_layer_names_all_parts() -> None:
    lines = findings(report_of(dp=1, experts=4, noise=0, steps=1))
    assert [line for line in lines if line.startswith("Time in ")] == [
        "Time in blocks.1.moe: router 600 us, experts 13.2 ms, rest (dispatch, combine, waits) 3 ms."
    ]
