"""Runs many trials of one kind, and counts their outcomes."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soak.console_output import Progress, table
from soak.originals import Random


@dataclass(frozen=True)
class Outcome:
    """One trial: what was done, the verdict, and further counts."""

    abuse: str
    verdict: str
    counted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A kind of trial.

    ``trial`` gets random numbers and a folder of its own, and raises if anything is lost; its files in the folder
    are then kept.  ``holds`` is the statement that is true if no trial has raised.
    """

    name: str
    trial: Callable[[Random, Path], Outcome]
    verdicts: Sequence[str]
    holds: str


def run(kind: Kind, first: int, count: int, seed: int, progress: Progress) -> bool:
    """Runs ``count`` trials from ``first`` on, prints the counts; False if one fails, with the way to repeat it."""
    tally: Counter[tuple[str, str]] = Counter()
    counted: Counter[str] = Counter()
    trials = kind.name.replace("-", " ")
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="distprof-soak-"))
    for number in range(first, first + count):
        progress.say(f"{number - first:,} of {count:,} {trials}")
        try:
            outcome = kind.trial(Random(f"{seed}:{kind.name}:{number}"), folder)
        except BaseException:
            progress.clear()
            traceback.print_exc()
            _show_failure(kind, number, seed, folder)
            return False
        tally[outcome.abuse, outcome.verdict] += 1
        counted.update(outcome.counted)
    progress.clear()
    folder.rmdir()
    print(table(tally, kind.verdicts))
    done = [f"{tally.total():,} {trials}", *(f"{amount:,} {what}" for what, amount in counted.items())]
    print(f"{', '.join(done)}, in {time.monotonic() - started:.0f} s: {kind.holds}\n", flush=True)
    return True


def _show_failure(kind: Kind, number: int, seed: int, folder: Path) -> None:
    print(
        f"trial {number} of {kind.name} failed, its files are in {folder}; again with "
        f"--only {kind.name} --{kind.name} 1 --seed {seed} --first {number}",
        file=sys.stderr,
    )
