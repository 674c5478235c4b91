"""Tests of Lightning's DDP on two real ranks."""

from __future__ import annotations

import pytest
from support.scenarios import RunScenarios
from support.stacks_page import Line

pytestmark = pytest.mark.stack("lightning")

LIGHTNING = Line("lightning", "Lightning")


@LIGHTNING.finds("dp of its DDP", "names without wrappers", "forward work of the model")
def test_ddp(run_scenarios: RunScenarios) -> None:
    seen = run_scenarios("on_lightning.py", ranks=2)["ddp"]
    assert (seen.sizes, seen.places("dp"), seen.topologies[1].source) == ({"dp": 2}, [(0,), (1,)], "torch")
    assert list(seen.parameters(1)) == ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]
    assert (seen.report.summary.params_exact, seen.report.summary.exact_covers_all) == (seen.whole, True)
    forward = seen.report.model.forward
    assert forward is not None and (forward.useful_macs, forward.covers_all) == (2 * (8 * 16 + 16 * 3), True)
