"""The diff part of the soak: records pairs of runs, compares them, and prints how often diff is right."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distprof.merge.analysis import start_analysis
from distprof.merge.diff.compare import compare
from distprof.merge.diff.samples import Side, processor_wait_share, side_of
from distprof.merge.load.run import load_run
from soak.console_output import Progress
from soak.diff.tally import Tally

#: As in soak.diff.record, which imports torch.
PLANTED, SLOWER = ("layers.2", "forward"), 0.1
_TOOLS = Path(__file__).parents[2]


def run(pairs: int, progress: Progress) -> bool:
    """Records ``pairs`` of equal runs and as many with a slower module; False after a false alarm or a wrong name."""
    folder, tally = Path(tempfile.mkdtemp(prefix="distprof-soak-diff-")), Tally(PLANTED, SLOWER)
    try:
        for number in range(pairs):
            names = [f"{number}-{kind}" for kind in ("first", "second", "slow")]
            _record(folder, names)
            first, second, slow = _sides(folder, names)
            shares = [processor_wait_share(side.report) or 0.0 for side in (first, second, slow)]
            tally.waited = max(tally.waited, *shares)
            tally.add_equal(compare(first, second))
            tally.add_slower(compare(first, slow))
            progress.say(f"{number + 1} of {pairs} pairs")
    finally:
        shutil.rmtree(folder)
    progress.clear()
    print(tally, flush=True)
    return tally.is_clean


def _record(folder: Path, names: list[str]) -> None:
    words = [sys.executable, "-m", "soak.diff.record", str(folder), *names]
    subprocess.run(words, cwd=_TOOLS, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _sides(folder: Path, names: list[str]) -> Iterator[Side]:
    return (side_of(start_analysis(load_run(folder / name))) for name in names)
