"""Training steps with something switched on, against the same steps plain, in one process.

    python -m bench.steps small --pairs 40        prints a :class:`Compared` for each variant as JSON

A machine with other tenants is slower for a second, and faster for the next: each step is compared with one right
beside it.  With and without take turns, A B, B A, A B ...; of each pair the ratio is taken, and of the ratios the
middle half is averaged.  CPU time of the process (all its threads) is blind to being kept waiting; wall time is shown
beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import NamedTuple

from bench.gpt import Training
from bench.shapes import SHAPES
from bench.variants import VARIANTS, Around, Variant

_UNKEPT = 3  # first pairs
_TRIMMED = 0.25  # of the ratios, at either end


@dataclass(frozen=True)
class Ratio:
    """A step with something switched on over one without, and where that ratio lies with a probability of 95 %."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    modules: int
    plain_ms: float  # CPU time of a plain step, median
    cpu: Ratio
    wall: Ratio


class _Taken(NamedTuple):
    """Nanoseconds of one step."""

    cpu: int
    wall: int


_Pair = tuple[_Taken, _Taken]  # without, with


def measure(training: Training, variant: Variant, pairs: int) -> Compared:
    unkept = _UNKEPT if pairs > 1 else 0
    with variant.ready(training) as around:
        found = list(_pairs(training, around, unkept + pairs))[unkept:]
    return Compared(
        modules=training.modules,
        plain_ms=statistics.median(plain.cpu for plain, _ in found) / 1e6,
        cpu=ratio([recorded.cpu / plain.cpu for plain, recorded in found]),
        wall=ratio([recorded.wall / plain.wall for plain, recorded in found]),
    )


def ratio(ratios: Sequence[float]) -> Ratio:
    """The middle half of these, averaged (as logarithms).

    The interval is that of a trimmed mean, from the winsorized deviation of all (Tukey and McLaughlin 1963).
    """
    logs = sorted(map(math.log, ratios))
    count, cut = len(logs), int(_TRIMMED * len(logs))
    middle = logs[cut : count - cut]
    mean = statistics.fmean(middle)
    winsorized = [middle[0]] * cut + middle + [middle[-1]] * cut
    error = statistics.stdev(winsorized) / (len(middle) / count * math.sqrt(count)) if count > 1 else 0.0
    return Ratio(math.exp(mean), math.exp(mean - 2 * error), math.exp(mean + 2 * error))


def _pairs(training: Training, around: Around, pairs: int) -> Iterator[_Pair]:
    gc.collect()
    gc.freeze()  # a collection then costs the same in both
    for number in range(pairs):
        if number % 2:
            recorded = _step(training, around)
            yield _step(training, nullcontext), recorded
        else:
            yield _step(training, nullcontext), _step(training, around)
    gc.unfreeze()


def _step(training: Training, around: Around) -> _Taken:
    with around():
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        training.step()
        return _Taken(time.process_time_ns() - cpu, time.perf_counter_ns() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps with something switched on, against plain ones.")
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    arguments = parser.parse_args()
    training = Training(SHAPES[arguments.model])
    chosen = {name: VARIANTS[name] for name in arguments.only if VARIANTS[name].installed}
    found = {name: measure(training, one, max(1, arguments.pairs // one.share)) for name, one in chosen.items()}
    print(json.dumps({name: asdict(compared) for name, compared in found.items()}))


if __name__ == "__main__":
    main()
