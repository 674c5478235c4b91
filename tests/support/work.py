"""The work that a function does, as distprof counts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode

Run = Callable[[], Any]


def counted(run: Run) -> FlopMode:
    """Returns the mode that counted the call of ``run``."""
    with FlopMode(Attribution()) as mode:
        run()
    assert mode.error is None
    return mode


def work(run: Run) -> tuple[int, int]:
    """Returns the MACs, and the flops beside them.  Every op must have a formula."""
    mode = counted(run)
    assert not mode.uncounted
    macs = sum(mode.macs.values())
    return macs, sum(mode.flops.values()) - 2 * macs
