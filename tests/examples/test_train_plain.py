from __future__ import annotations

import pytest
import torch
from support.examples import Twice, run_twice
from support.scripts import NewWorkplace
from train_plain import CLASSES, FEATURES, Classifier, Stopwatch, train_step

OPTIONS = ("--steps", "6", "--accumulate", "2", "--evaluate-every", "3", "--print-losses", "--stopwatch")


@pytest.fixture(scope="module")
def jobs(new_workplace: NewWorkplace) -> Twice:
    return run_twice(new_workplace, "train_plain.py", *OPTIONS, ranks=1)


def test_learns_evaluates_and_times_its_phases(jobs: Twice) -> None:
    job = jobs.plain
    assert len(job.losses) == 6
    assert job.losses[-1] < job.losses[0]
    assert len([line for line in job.lines if "accuracy" in line]) == 2
    (laps,) = job.stopwatches
    assert [lap > 0 for lap in laps["evaluation"]] == [False, False, True] * 2
    assert all(lap > 0 for phase in ("data", "forward", "backward", "optimizer") for lap in laps[phase])


def test_it_cannot_tell_that_it_is_recorded(jobs: Twice) -> None:
    jobs.assert_that_the_script_cannot_tell()


def test_two_micro_batches_take_the_step_of_one_batch() -> None:
    points, labels = torch.randn(16, FEATURES), torch.randint(CLASSES, (16,))
    results = []
    for count in (1, 2):
        torch.manual_seed(0)
        model = Classifier(dim=16, layers=1).eval()  # without dropout
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        stopwatch = Stopwatch(synchronize=False)
        stopwatch.start_step()
        batches = [list(batch) for batch in zip(points.chunk(count), labels.chunk(count), strict=True)]
        loss = train_step(model, optimizer, iter(batches), stopwatch, count)
        results.append([loss, *(parameter.detach() for parameter in model.parameters())])
    torch.testing.assert_close(*results)
