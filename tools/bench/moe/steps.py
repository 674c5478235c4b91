"""Compares timed steps that record the tokens of experts with timed steps that do not, in one process.

    python -m bench.moe.steps stacked --layers 32 --pairs 100        prints a :class:`Recorded` as JSON

Steps with and without alternate, as those of :mod:`bench.steps`.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench.estimate import Estimate, middle_ratio
from bench.moe.training import MoeTraining
from bench.recorders import SwitchedRecorder, checked
from distprof.probes.timing.probe import TimedProbe
from distprof.recorder.recorder import Recorder

KINDS = ("stacked", "listed")
_MANY = 1 << 30
_UNUSED = 3  # first pairs, which are not used


@dataclass(frozen=True)
class Recorded:
    layers: int
    without_ms: float  # CPU time of a timed step that records no experts, median
    cpu: Estimate  # ratio to it


def measure(training: MoeTraining, pairs: int) -> Recorded:
    """Returns the cost of the layers; raises RuntimeError if they are not recorded."""
    unkept = _UNUSED if pairs > 1 else 0
    found: list[tuple[int, int]] = []
    with checked({"memory": 1, "end": 1}, warmup=1, timed=_MANY, count=False) as recorder:
        training.step()
        training.step()
        switch, layers = _switch(recorder)
        turns = SwitchedRecorder(recorder)
        gc.collect()
        gc.freeze()  # a garbage collection then costs the same in both
        for number in range(unkept + pairs):
            order = (True, False) if number % 2 else (False, True)
            times = {recorded: _step_ns(training, turns, switch, recorded) for recorded in order}
            found.append((times[False], times[True]))
        gc.unfreeze()
    kept = found[unkept:]
    without = statistics.median(plain for plain, _ in kept) / 1e6
    return Recorded(layers, without, middle_ratio([recorded / plain for plain, recorded in kept]))


def _step_ns(training: MoeTraining, turns: SwitchedRecorder, switch: Callable[[bool], None], recorded: bool) -> int:
    switch(recorded)
    with turns():
        began = time.process_time_ns()
        training.step()
        return time.process_time_ns() - began


def _switch(recorder: Recorder) -> tuple[Callable[[bool], None], int]:
    """Returns a function that switches the recording of experts on or off, and the number of layers."""
    probe = recorder.probes.probe
    if not isinstance(probe, TimedProbe):
        raise RuntimeError(f"the step is no timed one: {probe}")
    tally = probe.timer.experts
    layers, entering, leaving = list(tally.layers), dict(tally.entering), dict(tally.leaving)

    def switch(recorded: bool) -> None:
        tally.layers[:] = layers if recorded else []
        tally.entering.clear()
        tally.leaving.clear()
        if recorded:
            tally.entering.update(entering)
            tally.leaving.update(leaving)

    return switch, len(layers)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare timed steps with and without experts' tokens.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    arguments = parser.parse_args()
    training = MoeTraining(arguments.layers, stacked=arguments.kind == "stacked")
    print(json.dumps(asdict(measure(training, arguments.pairs))))


if __name__ == "__main__":
    main()
