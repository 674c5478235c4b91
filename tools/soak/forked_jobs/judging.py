"""Records forked jobs and judges them, one after the other."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from soak.console_output import Progress

_TOOLS = Path(__file__).parents[2]


def judge_each(part: str, count: int, judge: Callable[[Path, int], None], progress: Progress) -> None:
    """Calls ``judge`` with a folder, which is removed in the end, and each number below ``count``."""
    with tempfile.TemporaryDirectory(prefix=f"distprof-soak-{part}-") as folder:
        for number in range(count):
            judge(Path(folder), number)
            progress.say(f"{part}: {number + 1} of {count}")
    progress.clear()


def record(part: str, folder: Path, names: Sequence[str]) -> None:
    """Records the runs with these names into ``folder``.  Raises CalledProcessError if one of them fails."""
    words = [sys.executable, "-m", f"soak.{part}.record", str(folder), *names]
    subprocess.run(words, cwd=_TOOLS, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
