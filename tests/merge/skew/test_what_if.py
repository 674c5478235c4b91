"""What slow ranks cost, on simulated jobs that can be run again without the fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from support.simulated.job import Enqueue, Item, Program, SimulatedJob, Turn, Wait, Work
from support.simulated.programs import data_parallel, pipeline, sharded, tensor_parallel
from support.synthetic import MS

from distprof.merge.analysis import Analysis, start_analysis
from distprof.merge.collectives.join import recorded
from distprof.merge.skew.verdict import rank_verdict
from distprof.merge.skew.what_if import cost_of, cost_of_excess
from distprof.records import NO_ROW, CollectiveWindow

WORLD = {"world": tuple(range(8))}


def analysis_of(program: Program, **job: object) -> Analysis:
    return start_analysis(SimulatedJob(program, 8, WORLD, **job).run())  # type: ignore[arg-type]


def iteration_ns(analysis: Analysis) -> float:
    return float(np.median([window.durations_ns for window in analysis.timed_windows.values()]))


def slower(times: dict[int, float]) -> Callable[[int, int], float]:
    return lambda rank, step: times.get(rank, 0.0)


@pytest.mark.parametrize("times", [{2: 30.0}, {2: 30.0, 5: 30.0}, {2: 30.0, 5: 12.0}])
def test_the_cost_is_what_the_job_takes_longer_than_without_the_fault(times: dict[int, float]) -> None:
    analysis = analysis_of(data_parallel(slower(times)))
    healthy = analysis_of(data_parallel())
    cost = cost_of(analysis, set(times))
    assert cost is not None
    assert cost.replayed_ns == pytest.approx(iteration_ns(analysis), rel=0.05)
    assert cost.cost_ns == pytest.approx(iteration_ns(analysis) - iteration_ns(healthy), rel=0.1)


PAIRS = {f"tp{pair}": (2 * pair, 2 * pair + 1) for pair in range(4)}
STAGES = {"dp0": (0, 1, 2, 3), "dp1": (4, 5, 6, 7), "pp": tuple(range(8))}
ARCHITECTURES: dict[str, tuple[Callable[..., Program], dict[str, object]]] = {
    "ddp": (data_parallel, {}),
    "fsdp": (sharded, {}),
    "tp": (
        tensor_parallel,
        {"sizes": {"dp": 4, "tp": 2, "mp": 2}, "coordinates": lambda rank: {"dp": rank // 2, "tp": rank % 2}},
    ),
    "pp": (
        pipeline,
        {"sizes": {"dp": 4, "pp": 2, "mp": 2}, "coordinates": lambda rank: {"dp": rank % 4, "pp": rank // 4}},
    ),
}


@pytest.mark.parametrize("slow_rank", [2, 5])
@pytest.mark.parametrize("noise", [0.02, 0.2])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_cost_that_the_verdict_gives_is_what_the_fault_costs(name: str, noise: float, slow_rank: int) -> None:
    """The same job without the fault is exactly known, step by step: ranks that compute do not disturb each other."""
    make, job = ARCHITECTURES[name]
    with_fault, without = (
        start_analysis(SimulatedJob(make(slower({slow_rank: ms}), noise=noise), 8, WORLD | PAIRS | STAGES, **job).run())  # type: ignore[arg-type]
        for ms in (20.0, 0.0)
    )
    found = rank_verdict(with_fault)
    assert [one.rank for one in found.named] == [slow_rank]
    assert found.cost_ns == pytest.approx(np.median(steps_ns(with_fault) - steps_ns(without)), rel=0.25)


def test_a_slow_rank_stays_faster_where_it_is() -> None:
    """Each rank takes 30 ms in two of three layers and 5 ms in the third; rank 2 takes 5 ms in all, and loses 60 ms.

    Its cohort's median is 30 ms in each layer, which is more than any rank takes in all of them.
    """

    def program(slow_ms: float) -> Program:
        def one(rank: int, step: int) -> list[Item]:
            items: list[Item] = []
            random = np.random.default_rng((rank, step))
            for layer in (1, 2, 3):
                fast = rank == 2 or rank % 3 == layer - 1
                items += [Turn(layer, "forward"), Work((5 if fast else 30) * random.lognormal(0, 0.1))]
                items += [Work(slow_ms * (rank == 2 and layer == 1))]
                items += [Enqueue("world")]
            return [*items, Turn(~0, "backward"), Wait(3), Wait(2), Wait(), Work(5), Turn(NO_ROW, "optimizer"), Work(1)]

        return one

    analysis, without = analysis_of(program(60)), analysis_of(program(0))
    found, at_medians = cost_of_excess(analysis, {2: 35.0 * MS}), cost_of(analysis, {2})
    truth = float(np.median(steps_ns(analysis) - steps_ns(without)))
    assert found is not None and found.cost_ns == pytest.approx(truth, abs=2 * MS)
    assert cost_of_excess(analysis, {2: 35.0 * MS}) is found, "one replay answers the same question twice"
    assert at_medians is not None and at_medians.cost_ns < truth - 5 * MS, "90 ms are more than this rank takes"


def test_the_cost_is_known_where_ranks_end_their_steps_at_different_times() -> None:
    """Rank 7 ends some steps late: the steps of ranks that start on time are as long as those before it."""

    def program(slow_ms: float) -> Program:
        def one(rank: int, step: int) -> list[Item]:
            late = Work(60 * (rank == 7 and step in (4, 5, 6, 7, 9)))
            return [*data_parallel(slower({2: slow_ms}), noise=0)(rank, step), late]

        return one

    analysis, healthy = analysis_of(program(30)), analysis_of(program(0))
    cost = cost_of(analysis, {2})
    assert cost is not None and cost.replayed_ns == pytest.approx(np.median(steps_ns(analysis)), rel=0.001)
    assert abs(cost.replayed_ns - iteration_ns(analysis)) > 0.1 * cost.replayed_ns, "by the ranks' own clocks"
    assert cost.cost_ns == pytest.approx(np.median(steps_ns(analysis) - steps_ns(healthy)), rel=0.001)


def steps_ns(analysis: Analysis) -> npt.NDArray[np.int64]:
    """Returns the time of each step, from the end of the last rank's step before to the end of its own."""
    own = recorded(analysis).values()
    ends = np.max([one.end_ns for one in own], axis=0)
    return np.diff([min(int(one.start_ns[0]) for one in own), *ends])


def test_of_two_equally_slow_ranks_one_alone_costs_nothing() -> None:
    analysis = analysis_of(data_parallel(slower({2: 30.0, 5: 30.0}), noise=0))
    cost = cost_of(analysis, {2})
    assert cost is not None and cost.cost_ns == pytest.approx(0, abs=0.1 * MS)


def test_time_that_another_rank_loses_as_well_is_no_cost() -> None:
    analysis = analysis_of(data_parallel(slower({2: 30.0, 5: 20.0}), noise=0))
    cost = cost_of(analysis, {2})
    assert cost is not None and cost.cost_ns == pytest.approx(10 * MS, abs=0.1 * MS)


def test_work_that_overlaps_with_a_wait_costs_only_what_is_waited_for() -> None:
    def program(rank: int, step: int) -> list[Item]:
        """Rank 1 is 20 ms slow before its enqueue; the others need the result only after 15 ms of other work."""
        items: list[Item] = [Turn(1, "forward"), Work(5 + 20 * (rank == 1)), Enqueue("world")]
        items += [Turn(2, "forward"), Work(15 - 15 * (rank == 1)), Turn(~0, "backward"), Wait(), Work(5)]
        return [*items, Turn(NO_ROW, "optimizer"), Work(1)]

    analysis = analysis_of(program)
    cost = cost_of(analysis, {1})
    # As it is: 25 + 5 + 1 ms.  Without: rank 1 takes 5 + 15 as the others, and an iteration 20 + 5 + 1.
    assert iteration_ns(analysis) == 31 * MS
    assert cost is not None and cost.cost_ns == pytest.approx(5 * MS, abs=0.1 * MS)


def test_without_collectives_there_is_no_cost() -> None:
    analysis = analysis_of(data_parallel(slower({2: 30.0})), drop=lambda rank, one: isinstance(one, CollectiveWindow))
    assert cost_of(analysis, {2}) is None
