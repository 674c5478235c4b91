"""Dispatch and combine, of a simulated job in which each part of a layer takes a planted time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.simulated.job import Enqueue, Item, SimulatedJob, Turn, Wait, Work
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.merge.report import LayerTimes
from distprof.merge.text.blocks.moe.findings import findings
from distprof.records import EXPERT, NO_ROW, ROUTER, ExpertLayer, Parameter, Record, Timeline

ROOT, MOE, GATE, EXPERTS = range(4)
ROWS = ("", "moe", "moe.gate", "moe.experts")
#: ms of the experts by rank: in the combine, rank 1 waits for rank 0.
EXPERTS_MS = (30.0, 10.0)


def pass_of(rank: int, experts_ms: float) -> list[Item]:
    """A forward and a backward of one micro-batch: dispatch 2 + 3, combine 4 ms and the wait; in backward 5 and 6."""
    forward: list[Item] = [
        Turn(ROOT, "forward"),
        Work(1),
        Turn(MOE, "forward"),
        Work(2),
        Turn(GATE, "forward"),
        Work(1),
    ]
    forward += [Turn(MOE, "forward"), Work(3), Turn(EXPERTS, "forward"), Work(experts_ms)]
    forward += [Turn(MOE, "forward"), Enqueue("world", "all_to_all"), Wait(), Work(4), Turn(ROOT, "forward"), Work(1)]
    backward: list[Item] = [Turn(~ROOT, "backward"), Work(1), Turn(~MOE, "backward"), Work(5)]
    backward += [Turn(~EXPERTS, "backward"), Work(experts_ms), Turn(~MOE, "backward"), Work(6)]
    return [*forward, *backward]


def job(micro_batches: int = 1, experts_ms: tuple[float, float] = EXPERTS_MS) -> SimulatedJob:
    def program(rank: int, step: int) -> list[Item]:
        end: list[Item] = [Turn(NO_ROW, "optimizer"), Work(3), Enqueue("world"), Wait()]
        return [*(item for _ in range(micro_batches) for item in pass_of(rank, experts_ms[rank])), *end]

    return SimulatedJob(
        program,
        2,
        {"world": (0, 1)},
        rows=ROWS,
        sizes={"dp": 2, "ep": 2},
        coordinates=lambda rank: {"dp": rank, "ep": rank},
        layers=lambda rank: (ExpertLayer("moe", MOE, 2, (rank,)),),
        tokens=lambda rank, step: (100,),
        parameters=(
            Parameter("moe.gate.weight", GATE, 0, 16, 16, 16, "float32", 4, kind=ROUTER),
            Parameter("moe.experts.weight", EXPERTS, 0, 64, 64, 128, "float32", 4, kind=EXPERT, split=("ep",)),
        ),
    )


def times_of(made: SimulatedJob) -> LayerTimes:
    (layer,) = analyse(made.run()).experts
    assert layer.times is not None
    return layer.times


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_dispatch_is_before_the_experts_and_combine_after_them(micro_batches: int) -> None:
    times = times_of(job(micro_batches))
    assert times.dispatch_ns == pytest.approx(micro_batches * (2 + 3 + 6) * MS)
    wait_ms = (0 + 20) / 2  # rank 1 waits as long as its experts are faster
    behind = (micro_batches - 1) * 20 / 2  # it comes to the next micro-batch as much earlier, by its faster backward
    assert times.combine_ns == pytest.approx((micro_batches * (4 + 5 + wait_ms) + behind) * MS)
    assert times.rest_ns == pytest.approx((times.dispatch_ns or 0) + (times.combine_ns or 0))
    assert times.not_apart == ""


def test_without_long_turns_of_the_experts_they_are_one() -> None:
    times = times_of(job(experts_ms=(0.5, 0.25)))
    assert (times.dispatch_ns, times.combine_ns) == (None, None)
    assert "less than 1 ms" in times.not_apart


def test_without_timelines_they_are_one() -> None:
    def drop(rank: int, record: Record) -> bool:
        return rank == 1 and isinstance(record, Timeline)

    assert times_of(replace(job(), drop=drop)).not_apart == "a step has no timeline"


def test_the_text_tells_them_apart_or_says_why_not() -> None:
    found = analyse(job().run())
    (line,) = (line for line in findings(found) if line.startswith("Time in "))
    assert line.endswith("rest (dispatch 11 ms, combine 19 ms, with waits) 30 ms.")
    short = analyse(job(experts_ms=(0.5, 0.25)).run())
    assert any(
        line.startswith("Dispatch and combine are not told apart: its experts run for") for line in findings(short)
    )
