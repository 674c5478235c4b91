"""The switch of the counting mode, where torch restores the stack of modes."""

from __future__ import annotations

from threading import get_ident

import torch

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.probes.counting.dispatch_stack import drop_abandoned_modes
from distprof.probes.counting.mode_switch import ModeSwitch


def test_a_mode_that_is_dropped_within_a_backward_does_not_stay() -> None:
    """An exception in recomputed code ends an iteration there; autograd's engine then brings the mode back."""
    switch, mode = ModeSwitch(get_ident(), whole=True), FlopMode(Attribution())
    switch.begin(mode)
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda _: switch.drop())
    y.sum().backward()
    assert mode.is_off
    drop_abandoned_modes()
    assert torch._C._len_torch_dispatch_stack() == 0
