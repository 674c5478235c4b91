from __future__ import annotations

import pytest
from support.examples import Twice, run_twice
from support.scripts import NewWorkplace

OPTIONS = ("--steps", "12", "--lr", "0.003", "--print-losses", "--stopwatch")


@pytest.fixture(scope="module")
def jobs(new_workplace: NewWorkplace) -> Twice:
    return run_twice(new_workplace, "train_ddp.py", *OPTIONS, ranks=2)


def test_two_ranks_learn_and_time_their_phases(jobs: Twice) -> None:
    job = jobs.plain
    assert len(job.losses) == 12
    assert job.losses[-1] < job.losses[0]
    assert [laps["rank"] for laps in job.stopwatches] == [0, 1]
    for laps in job.stopwatches:
        assert [len(laps[phase]) for phase in ("data", "forward", "backward", "optimizer")] == [12] * 4


def test_it_cannot_tell_that_it_is_recorded(jobs: Twice) -> None:
    jobs.assert_that_the_script_cannot_tell()
