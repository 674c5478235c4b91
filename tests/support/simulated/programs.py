"""Programs of simulated jobs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from support.simulated.job import Enqueue, Item, Program, Turn, Wait, Work

from distprof.records import NO_ROW


def data_parallel(slow: Callable[[int, int], float] = lambda rank, step: 0, noise: float = 0.02) -> Program:
    """Returns the program of DDP with three layers: gradients are reduced during backward, and waited for at its end.

    ``slow`` is what a rank takes longer in the forward of layers.1, in ms.
    """

    def program(rank: int, step: int) -> list[Item]:
        random = np.random.default_rng((rank, step))

        def about(ms: float) -> Work:
            return Work(ms * random.lognormal(0, noise))

        items: list[Item] = [Turn(NO_ROW, "data"), about(2)]
        for layer in (1, 2, 3):
            items += [Turn(layer, "forward"), about(5), *([Work(slow(rank, step))] if layer == 2 else [])]
        for layer in (3, 2, 1):
            items += [Turn(~layer, "backward"), about(10), Enqueue("world")]
        items += [Turn(~0, "backward"), Wait(3), Wait(2), Wait(1), about(1), Turn(NO_ROW, "optimizer"), about(3)]
        return items

    return program
