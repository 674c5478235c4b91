"""Runs the scripts of tests/cases, which once showed a fault, with and without distprof.

Each runs under distprof with its delicate iteration in the counted step, in a timed one, and before both.  Output,
files, exit code and the bits of all parameters have to be the same.  A difference that two runs without distprof show
too is counted separately.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from distprof.records import Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard
from soak.console_output import Progress, table
from soak.runs import RUN, differences, explain, plain, under_distprof
from soak.scripts import Script, scripts

SAME, DIFFERS, VARIES, NOT_INSTALLED = VERDICTS = ("same", "differs", "varies by itself", "not installed")


@dataclass(frozen=True)
class Compared:
    """The result of one run under distprof: its differences, and whether its steps were timed."""

    verdict: str
    explanation: str = ""
    timed: bool = False


def run(pattern: str, at_once: int, progress: Progress) -> bool:
    """Compares all scripts whose names match and prints the counts; returns False if something differs."""
    chosen, started = scripts(pattern), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="distprof-soak-"))
    tally: Counter[tuple[str, str]] = Counter()
    timed = 0
    with ThreadPoolExecutor(at_once) as pool:
        results = pool.map(_compare, chosen, [folder / str(number) for number in range(len(chosen))])
        for number, (script, compared) in enumerate(zip(chosen, results, strict=True)):
            tally.update((script.title, one.verdict) for one in compared)
            timed += sum(one.timed for one in compared)
            _show_differences(compared, progress)
            progress.say(f"{number + 1:,} of {len(chosen):,} cases")
    progress.clear()
    print(table(tally, VERDICTS))
    held = not any(tally[script.title, DIFFERS] for script in chosen)
    seconds = f"{time.monotonic() - started:.0f} s"
    print(
        f"{len(chosen):,} cases, {timed:,} runs with timed steps, in {seconds}: {_conclusion(held, folder)}\n",
        flush=True,
    )
    return held


def _show_differences(compared: list[Compared], progress: Progress) -> None:
    for one in compared:
        if one.explanation:
            progress.clear()
            print(one.explanation, file=sys.stderr, flush=True)


def _conclusion(held: bool, folder: Path) -> str:
    if not held:
        return f"not all is as without distprof, and the files of what differs are in {folder}"
    shutil.rmtree(folder)
    return "output, files, exit code and parameters are as without distprof"


def windows(event: int) -> Mapping[str, tuple[int, int]]:
    """Returns ``--warmup`` and ``--timed`` by the step in which they record that iteration.

    With several ranks, the iteration after the counted step is timed but not used.
    """
    return {"counted": (event, 3), "timed": (max(0, event - 2), 4), "before": (event + 1, 3)}


def _compare(script: Script, place: Path) -> list[Compared]:
    """Returns one comparison for each window.  The files of runs that differ are kept."""
    if not all(_installed(stack) for stack in script.stacks):
        return [Compared(NOT_INSTALLED)]
    without, again, compared = plain(script, place / "plain"), None, []
    for name, (warmup, timed) in windows(script.event).items():
        ours = under_distprof(script, place / name, warmup, timed)
        differ = differences(without, ours)
        again = plain(script, place / "again") if differ and again is None else again
        by_itself = set() if again is None else differences(without, again)
        verdict, explanation = VARIES if differ else SAME, ""
        if differ - by_itself:
            words = f"{script.title} --warmup {warmup} --timed {timed}"
            verdict, explanation = DIFFERS, f"{words}\n{explain(without, ours, differ - by_itself)}"
        compared.append(Compared(verdict, explanation, _has_timed(place / name)))
    if all(one.verdict != DIFFERS for one in compared):
        shutil.rmtree(place)
    return compared


def _installed(stack: str) -> bool:
    try:
        version(stack)
    except PackageNotFoundError:
        return False
    return True


def _has_timed(place: Path) -> bool:
    shards = RunFolder(place / "runs" / RUN).shard_files()
    return any(isinstance(record, Step) for path in shards for record in read_shard(path).records)
