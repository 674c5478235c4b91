"""The scripts of tests/cases, and the comment lines that tell how each is run.

* ``# ranks: N``, once;
* ``# arguments: ...``, a line for each set of arguments; no line if it takes no arguments;
* ``# stack: deepspeed``, if it needs a training stack;
* ``# event: N``, its delicate iteration, from 0; left out if all iterations are alike, or if it is number 5, which
  distprof counts by default.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).parents[2] / "tests" / "cases"
_EVENT = 5
_LINE = re.compile(r"^# (ranks|arguments|stack|event): *(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """A script with one set of arguments."""

    path: Path
    arguments: tuple[str, ...]
    ranks: int
    stacks: tuple[str, ...]
    event: int

    @property
    def title(self) -> str:
        return " ".join((self.path.stem, *self.arguments))


def scripts(pattern: str, folder: Path = CASES) -> list[Script]:
    """Returns the scripts whose names match, in the order of their names, each with all its sets of arguments."""
    return [script for path in sorted(folder.glob(f"{pattern}.py")) for script in _read(path)]


def _read(path: Path) -> list[Script]:
    said: dict[str, list[str]] = {"ranks": [], "arguments": [], "stack": [], "event": []}
    for what, words in _LINE.findall(path.read_text(encoding="utf-8")):
        said[what].append(words)
    if len(said["ranks"]) != 1:
        raise ValueError(f"{path} needs one line '# ranks: N'")
    (ranks,), event = said["ranks"], next(iter(said["event"]), _EVENT)
    stacks = tuple(stack for words in said["stack"] for stack in words.split())
    sets = said["arguments"] or [""]
    return [Script(path, tuple(shlex.split(words)), int(ranks), stacks, int(event)) for words in sets]
