"""The diff part of the soak: records pairs of runs, compares them, and prints how often diff is right."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distprof.merge.analysis import start_analysis
from distprof.merge.diff.compare import compare, side_of
from distprof.merge.diff.data import LESS, MORE, Diff
from distprof.merge.diff.samples import Side, processor_wait_share
from distprof.merge.load.run import load_run
from soak.console_output import Progress

#: As in soak.diff.record, which imports torch.
SLOW_MODULE = "layers.2"
_TOOLS = Path(__file__).parents[2]


@dataclass
class Tally:
    """What diff said of the pairs."""

    equal: int = 0
    false_alarms: int = 0
    slower: int = 0
    found: int = 0
    misnamed: int = 0
    waited: float = 0.0  # the largest share of the time in which a run waited for processors

    def add_equal(self, diff: Diff) -> None:
        self.equal += 1
        self.false_alarms += bool(_named(diff) or diff.worse_by(0.0))

    def add_slower(self, diff: Diff) -> None:
        self.slower += 1
        self.found += (SLOW_MODULE, "forward", MORE) in _named(diff)
        self.misnamed += any(subject != SLOW_MODULE for subject, _, _ in _named(diff))

    def __str__(self) -> str:
        return (
            f"diff: {self.equal} pairs of equal runs, {self.false_alarms} false alarms; {self.slower} runs with "
            f"{SLOW_MODULE} 10 % slower, found in {self.found}, another place named in {self.misnamed}; "
            f"runs waited for processors in up to {self.waited:.0%} of their time"
        )


def run(pairs: int, progress: Progress) -> bool:
    """Records ``pairs`` of equal runs and as many with a slower module; False after a false alarm or a wrong name."""
    folder, tally = Path(tempfile.mkdtemp(prefix="distprof-soak-diff-")), Tally()
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
    return not (tally.false_alarms or tally.misnamed)


def _record(folder: Path, names: list[str]) -> None:
    words = [sys.executable, "-m", "soak.diff.record", str(folder), *names]
    subprocess.run(words, cwd=_TOOLS, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _sides(folder: Path, names: list[str]) -> Iterator[Side]:
    return (side_of(start_analysis(load_run(folder / name))) for name in names)


def _named(diff: Diff) -> list[tuple[str, str, str]]:
    return [(one.subject, one.phase, one.finding) for one in diff.places if one.finding in (MORE, LESS)]
