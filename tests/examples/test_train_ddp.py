from __future__ import annotations

from support.examples import Run

OPTIONS = ("--steps", "12", "--lr", "0.003", "--print-losses", "--stopwatch")


def test_two_ranks_learn_and_time_their_phases(run: Run) -> None:
    job = run("train_ddp.py", *OPTIONS, ranks=2)
    assert len(job.losses) == 12
    assert job.losses[-1] < job.losses[0]
    assert [laps["rank"] for laps in job.stopwatches] == [0, 1]
    for laps in job.stopwatches:
        assert [len(laps[phase]) for phase in ("data", "forward", "backward", "optimizer")] == [12] * 4
