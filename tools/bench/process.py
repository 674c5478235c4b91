"""Runs commands in their own processes and measures their cost, with that of their children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

#: Variables of a job, a scheduler or a recorder around this process, and what hides the code that Python has compiled.
_FOREIGN = (
    "PYTHONDONTWRITEBYTECODE",
    "DISTPROF_",
    "PET_",
    "SLURM_",
    "TORCHELASTIC_",
    "PYTHONPATH",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "MASTER_",
)
#: What runs the commands.
PYTHON = sys.executable
#: The folder in which ``python -m bench...`` is found; nothing in it shadows an installed package.
TOOLS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Cost:
    """``peak_bytes``: the largest resident set of any one process, of the command or of its children."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    stdout: str


def python(*arguments: object, cwd: Path = TOOLS, program: str = "") -> Cost:
    """Runs a Python with ``arguments`` on one thread.  Raises RuntimeError with its output if it fails."""
    command = [program or PYTHON, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1"}, stdout=stdout, stderr=stderr
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said, complaints = _content(stdout), _content(stderr)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{_last_lines(said + complaints)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, said)


def json_of(*arguments: object) -> dict[str, Any]:
    """Runs Python with ``arguments``; returns the JSON of the last line that it prints."""
    found: dict[str, Any] = json.loads(python(*arguments).stdout.splitlines()[-1])
    return found


def alternately(pairs: int, one: Sequence[object], other: Sequence[object], cwd: Path) -> list[tuple[Cost, Cost]]:
    """Runs two commands alternately, so that a slow period of the machine affects both."""
    unkept = warm_ups(pairs)
    found = []
    for number in range(unkept + pairs):
        if number % 2:
            second = python(*other, cwd=cwd)
            found.append((python(*one, cwd=cwd), second))
        else:
            found.append((python(*one, cwd=cwd), python(*other, cwd=cwd)))
    return found[unkept:]


def warm_ups(times: int) -> int:
    """Returns the number of runs before the measured ones, which fill the caches; none before a single run."""
    return int(times > 1)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-20:])
