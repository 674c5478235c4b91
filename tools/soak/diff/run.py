"""The diff part of the soak: records pairs of runs, compares them, and prints how often diff is right."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from distprof.merge.analysis import start_analysis
from distprof.merge.diff.compare import compare
from distprof.merge.diff.samples import processor_wait_share, side_of
from distprof.merge.load.run import load_run
from soak.console_output import Progress
from soak.diff.tally import Tally
from soak.forked_jobs.judging import judge_each, record

#: As in soak.diff.record, which imports torch.
PLANTED, SLOWER = ("layers.2", "forward"), 0.1


def run(pairs: int, progress: Progress) -> bool:
    """Records ``pairs`` of equal runs and as many with a slower module; False after a false alarm or a wrong name."""
    tally = Tally(PLANTED, SLOWER)
    judge_each("diff", pairs, partial(_judge, tally), progress)
    print(tally, flush=True)
    return tally.is_clean


def _judge(tally: Tally, folder: Path, number: int) -> None:
    names = [f"{number}-{kind}" for kind in ("first", "second", "slow")]
    record("diff", folder, names)
    first, second, slow = (side_of(start_analysis(load_run(folder / name))) for name in names)
    shares = [processor_wait_share(side.report) or 0.0 for side in (first, second, slow)]
    tally.waited = max(tally.waited, *shares)
    tally.add_equal(compare(first, second))
    tally.add_slower(compare(first, slow))
