"""Tests of scripts with many optimizers, nested ones or none, without and with distprof."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scripts import NewWorkplace, Workplace

from distprof.records import TRAINING, Counts, Record, Step

CASES = Path(__file__).parents[1] / "cases"


def recorded(workplace: Workplace, case: str, *arguments: object, timed: int = 3) -> list[Record]:
    """Runs the script without and with distprof, checks that it does the same, and returns its shards."""
    words = ("python", CASES / f"{case}.py", *arguments)
    plain, seen = workplace.start(*words).wait(), workplace.exec(*words, timed=timed)
    assert (seen.code, seen.out) == (plain.code, plain.out) and plain.code == 0, seen.err
    (shard,) = workplace.shards()
    return list(shard.records)


def training(records: list[Record]) -> list[int]:
    """Returns the iterations that were counted and timed."""
    return [one.iteration for one in records if isinstance(one, (Counts, Step)) and one.mode == TRAINING]


@pytest.mark.parametrize(
    ("case", "arguments"),
    [
        ("many_root_modules_counted_step_quadratic", [40]),
        ("python_list_inputs_scanned", []),
        ("optimizer_in_backward", [300, 12]),
        ("zero_counts_optimizer_in_backward", []),
        ("no_optimizer", []),
    ],
)
def test_a_case_is_the_same_and_its_window_full(new_workplace: NewWorkplace, case: str, arguments: list[int]) -> None:
    assert training(recorded(new_workplace().forking(), case, *arguments))[-4:] == [1, 2, 3, 4]


@pytest.mark.stack("deepspeed")
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_with_two_parameter_groups(new_workplace: NewWorkplace, stage: int) -> None:
    workplace = new_workplace().forking()
    seen = workplace.run("--nproc", 1, CASES / "zero1_groups.py", stage)
    assert seen.code == 0, seen.err
    (shard,) = workplace.shards()
    assert training(list(shard.records)) == [1, 2, 3, 4]
    (counts,) = (one for one in shard.records if isinstance(one, Counts))
    assert counts.forward_macs.sum() == 8 * (16 * 16 + 16)
    assert counts.backward_macs.sum() == 8 * (16 * 16 + 2 * 16)
    steps = [one for one in shard.records if isinstance(one, Step)]
    assert all(step.phases_ns["forward"] and step.phases_ns["optimizer"] for step in steps)
    assert [(step.micro_batches, step.samples) for step in steps] == [(1, 8)] * 3
