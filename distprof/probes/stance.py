"""How compiled code runs during a counted step: as it was compiled, or in eager form.

Under a dispatch mode torch leaves code that it meets uncompiled eager for the rest of the job, and raises for
``fullgraph=True``; with a stance it does neither.  A stance is what each call of compiled code looks up as it begins.
torch's own function refuses to set it inside of such a call, and there a step may well end: in a compiled optimizer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Timer
from typing import Any

AS_COMPILED = "eager_on_recompile"  # what is compiled runs so, and what is not, is not compiled in this step
EAGER = "force_eager"

#: No iteration takes longer.  One that does not end is no iteration: the job has ended its training.
DEADLINE_S = 600.0
_SOON_S = 1.0


class Stance:
    """The compiler's stance for the time of a step; the user's before, after, and whenever it is given up."""

    def __init__(self, name: str, may_give_up: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """``may_give_up`` is asked on a thread of its own when the deadline has passed, until it agrees."""
        self.name = name
        self._may_give_up = may_give_up
        self._deadline_s = deadline_s
        self._timer: Timer | None = None
        self._ours: Any = None  # while it holds
        self._before: Any = None

    @property
    def concerns(self) -> bool:
        """Whether anything may have been compiled."""
        return "torch._dynamo.eval_frame" in sys.modules

    def take(self) -> None:
        if self.concerns:
            self._set()
            self._wait(self._deadline_s)

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._give_back()

    def pause(self) -> None:
        """Evaluation may be compiled anew, as it would be without us."""
        self._give_back()

    def resume(self) -> None:
        if self._timer is not None and self._ours is None:
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

    def _wait(self, seconds: float) -> None:
        self._timer = Timer(seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def _expire(self) -> None:
        if self._may_give_up():
            self._timer = None
            self._give_back()
        elif self._timer is not None:
            self._wait(_SOON_S)


def _eval_frame() -> Any:
    return sys.modules["torch._dynamo.eval_frame"]
