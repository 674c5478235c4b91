"""The diff part of the soak: records pairs of runs, compares them, and prints how often diff is right.

Each comparison is made twice: of one run of each, and of three runs of each, which were recorded in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from distprof.merge.analysis import start_analysis
from distprof.merge.diff.compare import compare
from distprof.merge.diff.samples import Side, processor_wait_share, side_of
from distprof.merge.load.run import load_run
from soak.console_output import Progress
from soak.diff.tally import Tally
from soak.forked_jobs.judging import judge_each, record

#: As in soak.diff.record, which imports torch.
PLANTED, SLOWER = ("layers.2", "forward"), 0.1
REPEATED = 3
_KINDS = ("first", "second", "slow")


def run(pairs: int, progress: Progress) -> bool:
    """Compares so many equal runs, and as many with a slower module, each of them recorded three times.

    False after a false alarm or a wrong name in these.  One run of each is compared too, for its rates.
    """
    once, repeated = Tally(PLANTED, SLOWER, "one run of each"), Tally(PLANTED, SLOWER, f"{REPEATED} runs of each")
    judge_each("diff", pairs, partial(_judge, once, repeated), progress)
    print(once, repeated, sep="\n", flush=True)
    return repeated.is_clean


def _judge(once: Tally, repeated: Tally, folder: Path, number: int) -> None:
    runs = []
    for repetition in range(REPEATED):
        names = [f"{number}.{repetition}-{kind}" for kind in _KINDS]
        # In turn, so that none is always the first one on a machine that was idle.
        record("diff", folder, names if (number + repetition) % 2 else names[::-1])
        runs.append([side_of(start_analysis(load_run(folder / name))) for name in names])
        _add(once, runs[-1])
    _add(repeated, [replace(first, again=tuple(again)) for first, *again in zip(*runs, strict=True)])


def _add(tally: Tally, sides: Sequence[Side]) -> None:
    first, second, slow = sides
    tally.waited = max(tally.waited, *(processor_wait_share(side) or 0.0 for side in sides))
    tally.add_equal(compare(first, second))
    tally.add_slower(compare(first, slow))
