"""Training steps with something switched on, against the same steps plain, in one process.

    python -m bench.steps small --pairs 40        prints a :class:`Compared` for each variant as JSON

Blocks alternate, A B, B A, A B ..., so that a machine that is slower for a while is so for both.  Other tenants of a
machine empty the caches now and then, which no clock of ours is blind to: what is compared is the lower quartile of all
steps with and of all steps without, what a step takes when it is disturbed least.  CPU time of the process (all its
threads) is blind at least to being kept waiting; wall time is shown beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

from bench.gpt import Training
from bench.process import warm_ups
from bench.shapes import SHAPES
from bench.variants import VARIANTS, Variant

#: The ratio is told of so many parts of the run, too: how far they lie apart says how far to trust it.
_PARTS = 5


@dataclass(frozen=True)
class Ratio:
    """Lower quartile of steps with something switched on over that of steps without: of all, and of each fifth."""

    whole: float
    parts: list[float]


@dataclass(frozen=True)
class Compared:
    modules: int
    plain_ms: float  # CPU time of a plain step, lower quartile
    cpu: Ratio
    wall: Ratio


@dataclass(frozen=True)
class _Block:
    """Nanoseconds of each step of a block."""

    cpu: list[int]
    wall: list[int]


_Pair = tuple[_Block, _Block]  # without, with


def measure(training: Training, variant: Variant, steps: int, pairs: int) -> Compared:
    """Some pairs of blocks of so many steps."""
    unkept = warm_ups(pairs)
    found = list(_pairs(training, variant, steps, unkept + pairs))[unkept:]
    return Compared(
        modules=training.modules,
        plain_ms=_quartile([plain.cpu for plain, _ in found]) / 1e6,
        cpu=_ratio([(plain.cpu, recorded.cpu) for plain, recorded in found]),
        wall=_ratio([(plain.wall, recorded.wall) for plain, recorded in found]),
    )


def _ratio(pairs: Sequence[tuple[list[int], list[int]]]) -> Ratio:
    size = max(1, len(pairs) // _PARTS)
    parts = [pairs[start : start + size] for start in range(0, len(pairs) - size + 1, size)]
    return Ratio(_of_quartiles(pairs), [_of_quartiles(part) for part in parts])


def _of_quartiles(pairs: Sequence[tuple[list[int], list[int]]]) -> float:
    return _quartile([recorded for _, recorded in pairs]) / _quartile([plain for plain, _ in pairs])


def _quartile(blocks: Sequence[list[int]]) -> float:
    steps = [step for block in blocks for step in block]
    return statistics.quantiles(steps, n=4, method="inclusive")[0] if len(steps) > 1 else float(steps[0])


def _pairs(training: Training, variant: Variant, steps: int, pairs: int) -> Iterator[_Pair]:
    def block(*, plain: bool) -> _Block:
        return _block(training, nullcontext() if plain else variant.around(training.model, steps), steps)

    for number in range(pairs):
        if number % 2:
            recorded = block(plain=False)
            yield block(plain=True), recorded
        else:
            yield block(plain=True), block(plain=False)


def _block(training: Training, around: AbstractContextManager[None], steps: int) -> _Block:
    with around:
        training.step()  # what is switched on meets the model, and caches fill
        gc.collect()
        cpu_ns, wall_ns = zip(*(_step(training) for _ in range(steps)), strict=True)
        return _Block(list(cpu_ns), list(wall_ns))


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
    print(json.dumps({name: asdict(compared) for name, compared in found.items()}))


if __name__ == "__main__":
    main()
