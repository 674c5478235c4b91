"""The skew part of the soak: records jobs with planted faults, judges the verdicts, and prints the tables."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from soak.console_output import Progress
from soak.skew.cases import RUN, Case, matching
from soak.skew.judge import FAILED, WRONG, Judgement, judge
from soak.skew.tables import tables

#: What the issue of the verdict asks for: at most this share of the jobs is judged wrong.
MAX_WRONG = 0.01
_TOOLS = Path(__file__).parents[2]


def sample(pattern: str, count: int, seed: int, apart_from: Path | None = None) -> list[Case]:
    """Returns the matching cases, or ``count`` of them at random; none that the folder ``apart_from`` has."""
    cases = [case for case in matching(pattern) if apart_from is None or not (apart_from / case.name).exists()]
    return random.Random(seed).sample(cases, count) if 0 < count < len(cases) else cases


def run(cases: Sequence[Case], keep: Path | None, progress: Progress) -> bool:
    """Records the cases, judges each, and prints the tables; False if too many are wrong.

    ``keep`` is a folder that keeps what was recorded: cases that it has already are not recorded again.
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="distprof-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    judged: list[Judgement] = []
    try:
        for case, well in _recorded(cases, folder):
            failed = Judgement(case, FAILED, words="not all ranks ended well")
            judged.append(judge(case, folder / case.name, RUN) if well else failed)
            _note(progress, judged[-1], len(judged), len(cases))
    finally:
        if keep is None:
            shutil.rmtree(folder)
    return _say(judged, progress)


def kept(folder: Path, pattern: str) -> list[Case]:
    """Returns the matching cases that a folder has kept."""
    return [case for case in matching(pattern) if _finished(folder / case.name)]


def judge_kept(folder: Path, pattern: str, progress: Progress) -> bool:
    """Judges what a folder has kept of earlier runs, without recording, and prints the tables."""
    there = kept(folder, pattern)
    judged: list[Judgement] = []
    for case in there:
        judged.append(judge(case, folder / case.name, RUN))
        progress.say(f"{len(judged)} of {len(there)} kept jobs")
    return _say(judged, progress)


def _say(judged: Sequence[Judgement], progress: Progress) -> bool:
    progress.clear()
    print(tables(judged), end="\n\n", flush=True)
    wrong = sum(one.outcome in (WRONG, FAILED) for one in judged)
    return wrong <= MAX_WRONG * len(judged)


def _note(progress: Progress, one: Judgement, number: int, count: int) -> None:
    progress.clear()
    said = f"soak: {number} of {count}: {one.case.name}: {one.outcome}: {one.words}"
    print(said, file=sys.stderr, flush=True)


def _recorded(cases: Sequence[Case], folder: Path) -> Iterator[tuple[Case, bool]]:
    """Yields each case when its job is there, and whether it ended well."""
    missing = []
    for case in cases:
        if _finished(folder / case.name):
            yield case, True
        else:
            shutil.rmtree(folder / case.name, ignore_errors=True)
            missing.append(case)
    if not missing:
        return
    words = [sys.executable, "-m", "soak.skew.record", str(folder.absolute())]
    with subprocess.Popen(words, cwd=_TOOLS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdin is not None and recorder.stdout is not None
        recorder.stdin.write("\n".join(case.name for case in missing))
        recorder.stdin.close()
        for case, line in zip(missing, recorder.stdout, strict=False):
            (folder / case.name / "done.json").write_text(line, encoding="utf-8")
            yield case, json.loads(line)["well"]
    if recorder.returncode:
        raise RuntimeError(f"the recorder of jobs ended with {recorder.returncode}")


def _finished(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "done.json").read_text(encoding="utf-8"))["well"])
    except (OSError, ValueError):
        return False
