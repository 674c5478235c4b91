"""Training steps with something switched on, against the same steps plain: in pairs, in one process.

    python -m bench.steps small --pairs 40        prints a :class:`Paired` for each variant as JSON

Blocks alternate, A B, B A, A B ..., so that a machine that is slower for a while is so for both; each pair gives one
ratio, of the median step of either block, and the median of many is what counts.  CPU time of the process (all its
threads) is blind to what else runs on the machine, but for its caches; wall time is shown beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

from bench.gpt import Training
from bench.process import warm_ups
from bench.shapes import SHAPES
from bench.variants import VARIANTS, Variant


@dataclass(frozen=True)
class Paired:
    """``cpu`` and ``wall``: time of the steps over that of the same steps plain, one ratio a pair."""

    modules: int
    plain_ms: list[float]  # CPU time of one plain step, a figure a pair
    cpu: list[float]
    wall: list[float]


@dataclass(frozen=True)
class _Times:
    """Of a block's median step."""

    cpu_ns: float
    wall_ns: float


def measure(training: Training, variant: Variant, steps: int, pairs: int) -> Paired:
    """Some pairs of blocks of so many steps."""
    unkept = warm_ups(pairs)
    found = list(_pairs(training, variant, steps, unkept + pairs))[unkept:]
    return Paired(
        modules=training.modules,
        plain_ms=[plain.cpu_ns / 1e6 for plain, _ in found],
        cpu=[recorded.cpu_ns / plain.cpu_ns for plain, recorded in found],
        wall=[recorded.wall_ns / plain.wall_ns for plain, recorded in found],
    )


def _pairs(training: Training, variant: Variant, steps: int, pairs: int) -> Iterator[tuple[_Times, _Times]]:
    def block(*, plain: bool) -> _Times:
        return _block(training, nullcontext() if plain else variant.around(training.model, steps), steps)

    for number in range(pairs):
        if number % 2:
            recorded = block(plain=False)
            yield block(plain=True), recorded
        else:
            yield block(plain=True), block(plain=False)


def _block(training: Training, around: AbstractContextManager[None], steps: int) -> _Times:
    with around:
        training.step()  # what is switched on meets the model, and caches fill
        gc.collect()
        cpu_ns, wall_ns = zip(*(_step(training) for _ in range(steps)), strict=True)
        return _Times(statistics.median(cpu_ns), statistics.median(wall_ns))


def _step(training: Training) -> tuple[int, int]:
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    training.step()
    return time.process_time_ns() - cpu, time.perf_counter_ns() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps with something switched on, against plain ones.")
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    arguments = parser.parse_args()
    training = Training(SHAPES[arguments.model])
    chosen = {name: VARIANTS[name] for name in arguments.only if VARIANTS[name].installed}
    found = {name: measure(training, one, one.steps[arguments.model], arguments.pairs) for name, one in chosen.items()}
    print(json.dumps({name: asdict(paired) for name, paired in found.items()}))


if __name__ == "__main__":
    main()
