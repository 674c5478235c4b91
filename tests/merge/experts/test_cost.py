"""The cost of unequal loads: own times of ep ranks in a layer, of a simulated job whose ranks wait for each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.reports import report_of
from support.simulated.job import Enqueue, Item, SimulatedJob, Turn, Wait, Work
from support.synthetic import MS

from distprof.merge.analysis import Analysis, start_analysis
from distprof.merge.experts.cost import cost_of_imbalance, cost_of_loads, own_time_by_ep
from distprof.merge.experts.summary import summarise
from distprof.merge.text.blocks.moe.experts import experts_block
from distprof.records import NO_ROW, CollectiveWindow, Record

#: ms in the forward of layers.1 by rank; ranks 0 and 2 have ep coordinate 0, ranks 1 and 3 have 1.
WORK = (10.0, 40.0, 14.0, 42.0)
EP = {rank: rank % 2 for rank in range(4)}


def program(rank: int, step: int) -> list[Item]:
    """In the forward of layers.1 each rank computes and waits for the others; in its backward it takes 6 ms."""
    forward: list[Item] = [
        Turn(1, "forward"),
        Work(5),
        Turn(2, "forward"),
        Work(WORK[rank]),
        Enqueue("world"),
        Wait(),
        Work(2),
    ]
    return [*forward, Turn(~2, "backward"), Work(6), Turn(NO_ROW, "optimizer"), Work(3), Enqueue("world"), Wait()]


def analysis(drop: type[Record] | None = None) -> Analysis:
    job = SimulatedJob(program, 4, {"world": (0, 1, 2, 3)}, sizes={"dp": 4, "ep": 2})
    return start_analysis(replace(job, drop=lambda _, record: drop is not None and isinstance(record, drop)).run())


def test_own_times_are_without_the_wait_for_the_slowest_rank() -> None:
    run = analysis()
    labels = [module.label for module in run.union.modules]
    own = own_time_by_ep(run, labels.index("layers.1"), EP, 2)
    assert own == pytest.approx((20 * MS, 49 * MS)), "work of 12 and 41 ms, 2 after the collective, and 6 in backward"
    assert cost_of_imbalance(own) == pytest.approx(14.5 * MS)


def test_modules_inside_count() -> None:
    run = analysis()
    root = [module.label for module in run.union.modules].index("Net")
    assert own_time_by_ep(run, root, EP, 2) == pytest.approx((25 * MS, 54 * MS)), "5 ms of layers.0 as well"


def test_without_waits_or_experts_apart_nothing_is_said() -> None:
    assert own_time_by_ep(analysis(), 2, EP, 1) == ()
    assert own_time_by_ep(analysis(drop=CollectiveWindow), 2, EP, 2) == ()
    known, unknown = own_time_by_ep(analysis(), 2, {0: 0, 2: 0}, 2)
    assert known == pytest.approx(20 * MS) and unknown is None
    assert cost_of_imbalance((1.0, None)) is None and cost_of_imbalance(()) is None


@pytest.mark.parametrize(
    ("own_ns", "tokens", "expected"),
    [
        ((10.0, 30.0), (100, 300), 10.0),  # time follows tokens
        ((15.0, 25.0), (100, 300), 5.0),  # the excess is less than tokens would explain
        ((10.0, 90.0), (300, 100), 0.0),  # the rank with the fewest tokens is slow: its device
        ((10.0, 90.0), (200, 200), 0.0),  # equal loads cost nothing
        ((10.0, 90.0), (190, 210), 2.5),  # 5 % more tokens than the mean explain 5 % of the mean of 50
        ((10.0, None), (100, 300), None),
        ((10.0, 90.0), (100, None), None),
        ((), (), None),
    ],
)
def test_what_loads_explain_of_the_cost(
    own_ns: tuple[float | None, ...], tokens: tuple[int | None, ...], expected: float | None
) -> None:
    assert cost_of_loads(own_ns, tokens) == pytest.approx(expected)


def test_a_slow_rank_is_not_priced_as_an_unequal_load() -> None:
    report = report_of(dp=4, ep=2, layers=4, noise=0.0)
    first, second = (replace(layer, ep_cost_ns=10e6) for layer in report.experts)
    found = summarise((replace(first, load_cost_ns=8e6), replace(second, load_cost_ns=2e6)), 100e6)
    assert found is not None
    assert (found.cost_ns, found.cost_share) == (10e6, 0.1)
    assert found.slow_otherwise == (second.name,)


def test_the_block_has_the_cost_where_it_is_known() -> None:
    report = report_of(dp=4, ep=2, layers=2, noise=0.0)
    assert "ep cost" not in "\n".join(experts_block(report))
    (layer,) = report.experts
    lines = list(experts_block(replace(report, experts=(replace(layer, ep_cost_ns=14.5e6),))))
    head, row = lines[-2:]
    assert "ep max/mean  ep cost" in head and "14.5 ms" in row
