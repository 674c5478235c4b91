"""Tests of higher-order ops under the counting mode, in torch that does not ask a mode whether it takes them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distprof.flops import decompositions
from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode

WIDTH, ROWS = 8, 3


class OlderMode(FlopMode):
    """What a mode is in torch 2.6: no class of modes has this attribute."""

    supports_higher_order_operators = False


@pytest.mark.usefixtures("fresh_compiler")
def test_control_flow_is_counted_where_modes_need_a_rule_for_each_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompositions, "_NEEDS_RULES", True)
    linear, x = nn.Linear(WIDTH, WIDTH), torch.ones(ROWS, WIDTH)
    expected = linear(x)
    mode = OlderMode(Attribution())
    with mode:
        y = torch.cond(x.sum() > 0, lambda x: linear(x), torch.sin, (x,))  # noqa: PLW0108
    assert torch.equal(y, expected)
    assert sum(mode.macs.values()) == ROWS * WIDTH * WIDTH
