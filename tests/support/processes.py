"""Runs Python in its own process, as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def python(
    *words: object,
    env: Mapping[str, str],
    cwd: Path | None = None,
    seconds: float = 600,
    executable: Path = Path(sys.executable),
) -> subprocess.CompletedProcess[str]:
    """``python("script.py", "--an", "option", env=clean_env)``: waits for its end and captures its output."""
    return subprocess.run(
        [executable, *map(str, words)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def output_of(
    *words: object, env: Mapping[str, str], cwd: Path | None = None, executable: Path = Path(sys.executable)
) -> str:
    """Returns its output if it ends with 0."""
    ended = python(*words, env=env, cwd=cwd, executable=executable)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
