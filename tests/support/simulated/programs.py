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
        about = _about(rank, step, noise)
        items: list[Item] = [Turn(NO_ROW, "data"), about(2)]
        for layer in (1, 2, 3):
            items += [Turn(layer, "forward"), about(5), *([Work(slow(rank, step))] if layer == 2 else [])]
        for layer in (3, 2, 1):
            items += [Turn(~layer, "backward"), about(10), Enqueue("world")]
        items += [Turn(~0, "backward"), Wait(3), Wait(2), Wait(1), about(1), Turn(NO_ROW, "optimizer"), about(3)]
        return items

    return program


def sharded(slow: Callable[[int, int], float], noise: float = 0.02) -> Program:
    """Returns the program of FSDP with three layers, whose parameters are gathered before they are used.

    ``slow`` is what a rank takes longer in the forward of layers.1, in ms; so it is in the other programs.
    """

    def program(rank: int, step: int) -> list[Item]:
        about = _about(rank, step, noise)
        items: list[Item] = [Turn(NO_ROW, "data"), about(2)]
        for layer in (1, 2, 3):
            items += [Turn(layer, "forward"), Enqueue("world", "all_gather"), Wait(), about(5)]
            items += [Work(slow(rank, step))] if layer == 2 else []
        for layer in (3, 2, 1):
            items += [Turn(~layer, "backward"), Enqueue("world", "all_gather"), Wait(), about(10), Enqueue("world")]
        return [*items, Turn(~0, "backward"), Wait(), about(1), Turn(NO_ROW, "optimizer"), about(3)]

    return program


def tensor_parallel(slow: Callable[[int, int], float], noise: float = 0.02) -> Program:
    """Returns the program of pairs ``tp0``, ``tp1``, ... that meet after each layer, and of all ranks at the end."""

    def program(rank: int, step: int) -> list[Item]:
        about = _about(rank, step, noise)
        items: list[Item] = [Turn(NO_ROW, "data"), about(2)]
        for owner in (1, 2, 3, ~3, ~2, ~1):
            items += [Turn(owner, "backward" if owner < 0 else "forward"), about(10 if owner < 0 else 5)]
            items += [Work(slow(rank, step))] if owner == 2 else []
            items += [Enqueue(f"tp{rank // 2}"), Wait(), about(0.5)]
        items += [Turn(~0, "backward"), Enqueue("world"), Wait(), about(1)]
        return [*items, Turn(NO_ROW, "optimizer"), about(3)]

    return program


def pipeline(slow: Callable[[int, int], float], noise: float = 0.02, parts: int = 4) -> Program:
    """Returns the program of a pipeline of two stages, ranks 0 to 3 and 4 to 7, with GPipe's schedule of ``parts``
    micro-batches; the replicas ``dp0`` and ``dp1`` of a stage meet at the end.
    """

    def program(rank: int, step: int) -> list[Item]:
        about, first = _about(rank, step, noise), rank < 4
        peer = rank + 4 if first else rank - 4
        get: list[Item] = [Turn(NO_ROW, "outside"), Enqueue("pp", "recv", peer), Wait(), Work(0.1)]
        items: list[Item] = []
        for _ in range(parts):
            items += [*([] if first else get), Turn(2, "forward"), about(5), Work(slow(rank, step) / parts)]
            items += [Enqueue("pp", "send", peer)] if first else []
        for _ in range(parts):
            items += [*(get if first else []), Turn(~2, "backward"), about(10)]
            items += [] if first else [Enqueue("pp", "send", peer)]
        items += [Turn(NO_ROW, "other"), Enqueue(f"dp{rank // 4}"), Wait(), about(1)]
        return [*items, Turn(NO_ROW, "optimizer"), about(3)]

    return program


def _about(rank: int, step: int, noise: float) -> Callable[[float], Work]:
    random = np.random.default_rng((rank, step))
    return lambda ms: Work(ms * random.lognormal(0, noise))
