"""Compares training steps with a recorder or another tool to the same steps without, in one process.

    python -m bench.steps small --pairs 40        prints a :class:`Compared` for each variant as JSON

The speed of a shared machine changes from second to second, so each step is compared with its neighbour: steps with and
without alternate (A B, B A, A B, ...), and the middle half of the ratios of the pairs is averaged.  CPU time of the
process (all its threads) does not include waiting; wall time is shown beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import NamedTuple

from bench.estimate import Estimate, middle_half, middle_ratio
from bench.gpt import Training
from bench.shapes import NARROW, SHAPES
from bench.variants import VARIANTS, Around, Variant

_SHAPES = {**SHAPES, "narrow": NARROW}
_UNUSED = 3  # first pairs, which are not used


@dataclass(frozen=True)
class Compared:
    modules: int
    plain_ms: float  # CPU time of a plain step, median
    cpu: Estimate  # ratio to plain steps
    wall: Estimate
    added_ms: Estimate  # CPU time


class _StepTime(NamedTuple):
    """The time of one step in ns."""

    cpu: int
    wall: int


_Pair = tuple[_StepTime, _StepTime]  # (without, with)


def measure(training: Training, variant: Variant, pairs: int) -> Compared:
    unkept = _UNUSED if pairs > 1 else 0
    with variant.ready(training) as around:
        found = list(_pairs(training, around, unkept + pairs))[unkept:]
    return Compared(
        modules=training.modules,
        plain_ms=statistics.median(plain.cpu for plain, _ in found) / 1e6,
        cpu=middle_ratio([recorded.cpu / plain.cpu for plain, recorded in found]),
        wall=middle_ratio([recorded.wall / plain.wall for plain, recorded in found]),
        added_ms=middle_half([(recorded.cpu - plain.cpu) / 1e6 for plain, recorded in found]),
    )


def _pairs(training: Training, around: Around, pairs: int) -> Iterator[_Pair]:
    gc.collect()
    gc.freeze()  # a garbage collection then costs the same in both
    for number in range(pairs):
        if number % 2:
            recorded = _step(training, around)
            yield _step(training, nullcontext), recorded
        else:
            yield _step(training, nullcontext), _step(training, around)
    gc.unfreeze()


def _step(training: Training, around: Around) -> _StepTime:
    with around():
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        training.step()
        return _StepTime(time.process_time_ns() - cpu, time.perf_counter_ns() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare training steps with a variant to plain ones.")
    parser.add_argument("model", choices=_SHAPES)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    arguments = parser.parse_args()
    training = Training(_SHAPES[arguments.model])
    chosen = {name: VARIANTS[name] for name in arguments.only if VARIANTS[name].installed}
    found = {name: measure(training, one, max(1, arguments.pairs // one.share)) for name, one in chosen.items()}
    print(json.dumps({name: asdict(compared) for name, compared in found.items()}))


if __name__ == "__main__":
    main()
