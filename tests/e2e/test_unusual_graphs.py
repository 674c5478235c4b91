"""Tests of models with unusual graphs: control flow that compiles itself, long graphs, nested tensors, threads."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scripts import NewWorkplace

from distprof.records import Counts, Step

CASES = Path(__file__).parents[1] / "cases"
WIDTH = 8


@pytest.fixture
def counts_of(new_workplace: NewWorkplace) -> CountsOf:
    return CountsOf(new_workplace)


class CountsOf:
    """Runs a case without and with distprof, checks that it prints the same, and returns its counts."""

    def __init__(self, new_workplace: NewWorkplace) -> None:
        self._new_workplace = new_workplace
        self.steps: list[Step] = []

    def __call__(self, case: str, *arguments: object, timed: int = 2, **env: str) -> Counts:
        place = self._new_workplace().forking()
        words = ("python", CASES / f"{case}.py", *arguments)
        plain, recorded = place.start(*words, **env).wait(), place.exec(*words, timed=timed, **env)
        assert (plain.code, recorded.code) == (0, 0), plain.err + recorded.err
        assert recorded.out == plain.out
        (shard,) = place.shards()
        self.steps = [record for record in shard.records if isinstance(record, Step)]
        return [record for record in shard.records if isinstance(record, Counts)][-1]


@pytest.mark.parametrize(("step", "given"), [(1, "hidden"), (1, "input"), (3, "hidden")])
def test_a_branch_keeps_its_gradients_when_a_new_shape_arrives(counts_of: CountsOf, step: int, given: str) -> None:
    """Step 1 is counted, step 3 is timed."""
    counts = counts_of("cond_train", step, given)
    linear = (9 if step == 1 else 4) * WIDTH * WIDTH
    assert (int(counts.forward_macs.sum()), counts.uncounted) == (2 * linear, {})


def test_a_long_recurrence(counts_of: CountsOf) -> None:
    """torch frees a graph without recursion, unless Python has looked at its nodes."""
    assert counts_of("segfault_long_graph_counted", 1_750, STACK_MIB="1").forward_macs.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ops", "calls", "step"), [(5, 3_000, 1), (1, 15_000, 2)], ids=["in the counted step", "in a timed step"]
)
def test_a_graph_of_very_many_module_calls(counts_of: CountsOf, ops: int, calls: int, step: int) -> None:
    """Python looks at a node of each call; freed by recursion, these nodes overflow the stack."""
    lengths = [10] * 4
    lengths[step] = calls
    counts = counts_of("long_graph_each_step", ops, *lengths, STACK_MIB="1")
    assert counts.calls.tolist() == [1, lengths[1]]
    assert [one.calls.tolist() for one in counts_of.steps] == [[1, lengths[2]], [1, lengths[3]]]


def test_jagged_tensors(counts_of: CountsOf) -> None:
    lengths, width = (5, 9, 2), 32
    counts = counts_of("njt_train")
    products = 2 * sum(length**2 for length in lengths) * width  # Q K^T and P V, of all heads
    assert int(counts.forward_macs.sum()) == 4 * sum(lengths) * width**2 + products


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_strided_nested_tensors(counts_of: CountsOf, where: str) -> None:
    lengths, width = (5, 9, 2), 16
    counts = counts_of("nt_train", where)
    assert int(counts.forward_macs.sum()) == sum(lengths) * width**2
    assert int(counts.backward_macs.sum()) == sum(lengths) * width**2, "of the weight alone: the input needs none"
    if where == "outside":
        assert [step.batch_size for step in counts_of.steps] == [len(lengths)] * 2


def test_forwards_on_other_threads_are_told(counts_of: CountsOf) -> None:
    assert counts_of("thread_train").uncounted == {"forwards on other threads": 2}
