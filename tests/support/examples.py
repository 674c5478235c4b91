"""Runs a script of ``examples/`` and reads its output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.scripts import TIMED, TIMED_OF_SEVERAL, NewWorkplace, iterations

EXAMPLES = Path(__file__).parents[2] / "examples"


class Job:
    """The output of a finished job."""

    def __init__(self, output: str) -> None:
        self.lines = output.splitlines()

    def after(self, word: str) -> list[str]:
        """Returns the rest of every line that starts with ``word``."""
        return [line.removeprefix(word).strip() for line in self.lines if line.startswith(word)]

    @property
    def losses(self) -> list[float]:
        """Returns the loss of every step (``--print-losses``)."""
        (losses,) = self.after("losses")
        return [float.fromhex(loss) for loss in json.loads(losses)]

    @property
    def stopwatches(self) -> list[dict[str, Any]]:
        """Returns one dict for each rank, in rank order (``--stopwatch``): "rank", and ms per step by phase."""
        return [json.loads(laps) for laps in self.after("stopwatch")]

    @property
    def untimed(self) -> list[str]:
        """Returns the lines without times."""
        return [line for line in self.lines if not line.startswith("stopwatch")]


#: ``run("train_ddp.py", "--steps", "4", ranks=2)``
Run = Callable[..., Job]


@dataclass(frozen=True)
class Twice:
    """One job, run without and with distprof."""

    plain: Job
    recorded: Job

    def assert_that_the_script_cannot_tell(self) -> None:
        """Checks that its losses and its other output are the same, bit by bit."""
        assert self.recorded.untimed == self.plain.untimed
        assert len(set(self.plain.losses)) > 1


def run_twice(new_workplace: NewWorkplace, script: str, *options: str, ranks: int) -> Twice:
    """Runs it on several ranks, or in one process without a launcher.  Checks that both jobs end with 0 and that all
    ranks are recorded.

    """
    place, words = new_workplace().forking(), (EXAMPLES / script, *options)
    if ranks > 1:
        plain = place.start_torchrun("--nproc-per-node", ranks, *words).wait()
        recorded = place.run("--nproc", ranks, *words)
    else:
        plain, recorded = place.start("python", *words).wait(), place.exec("python", *words)
    assert (plain.code, recorded.code) == (0, 0), plain.err + recorded.err
    assert [iterations(shard) for shard in place.shards()] == [TIMED if ranks == 1 else TIMED_OF_SEVERAL] * ranks
    return Twice(Job(plain.out), Job(recorded.out))
