"""How compiled code runs during a counted step: as it was compiled, or in eager form.

Under a dispatch mode torch leaves code that it meets uncompiled eager for the rest of the job, and raises for
``fullgraph=True``; with a stance it does neither.  A stance is what each call of compiled code looks up as it begins.
torch's own function refuses to set it inside of such a call, and there a step may well end: in a compiled optimizer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

AS_COMPILED = "eager_on_recompile"  # what is compiled runs so, and what is not, is not compiled in this step
EAGER = "force_eager"

#: No iteration takes longer.  One that does not end is no iteration: the job has ended its training.
DEADLINE_S = 600.0


class Stance:
    """The compiler's stance for the time of a step; the user's before, after, and whenever it is given up."""

    def __init__(
        self,
        name: str,
        may_give_up: Callable[[], bool],
        deadline_s: float = DEADLINE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``may_give_up`` is asked when the deadline has passed, until it agrees."""
        self.name = name
        self._may_give_up = may_give_up
        self._deadline_s = deadline_s
        self._now = now
        self._until: float | None = None  # while it is taken
        self._ours: Any = None  # while it holds
        self._before: Any = None

    @property
    def concerns(self) -> bool:
        """Whether anything may have been compiled."""
        return "torch._dynamo.eval_frame" in sys.modules

    def take(self) -> None:
        if self.concerns:
            self._set()
            self._until = self._now() + self._deadline_s

    def leave(self) -> None:
        self._until = None
        self._give_back()

    def look_at_the_time(self) -> None:
        """Give it up if the step does not end.  Asked where models and compiled code begin to run: a timer would be a
        thread more than the script has.
        """
        if self._until is not None and self._now() > self._until and self._may_give_up():
            self.leave()

    def pause(self) -> None:
        """Evaluation may be compiled anew, as it would be without us."""
        self._give_back()

    def resume(self) -> None:
        if self._until is not None and self._ours is None:
            self._set()

    def _set(self) -> None:
        frames = _eval_frame()
        self._before, self._ours = frames._stance, frames.DynamoStance(self.name)
        frames._stance = self._ours

    def _give_back(self) -> None:
        """Unless the script has set another one in the meantime."""
        ours = self._ours
        if ours is not None:
            if _eval_frame()._stance is ours:
                _eval_frame()._stance = self._before
            self._ours = None


def _eval_frame() -> Any:
    return sys.modules["torch._dynamo.eval_frame"]
