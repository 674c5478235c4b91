"""Running a script of ``examples/`` and reading what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


class Job:
    """What a finished job printed."""

    def __init__(self, output: str) -> None:
        self.lines = output.splitlines()

    def after(self, word: str) -> list[str]:
        """The rest of every line that starts with ``word``."""
        return [line.removeprefix(word).strip() for line in self.lines if line.startswith(word)]

    @property
    def losses(self) -> list[float]:
        """Of every step (``--print-losses``)."""
        (losses,) = self.after("losses")
        return [float.fromhex(loss) for loss in json.loads(losses)]

    @property
    def stopwatches(self) -> list[dict[str, Any]]:
        """One a rank, in rank order (``--stopwatch``): "rank", and ms per step by phase."""
        return [json.loads(laps) for laps in self.after("stopwatch")]


#: ``run("train_ddp.py", "--steps", "4", ranks=2)``
Run = Callable[..., Job]
