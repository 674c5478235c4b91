"""The form in which compiled code runs during a counted step: as compiled, or eager.

Each call of compiled code looks up the compiler's stance as it begins.  A recent torch, whose compiler ignores dispatch
modes that ask for it, needs no stance to run code as compiled: new code is compiled as usual.  An older torch leaves
code that it first sees under a dispatch mode eager for the rest of the job, and raises for ``fullgraph=True``; a stance
avoids both.  torch's own function refuses to set a stance inside a call of compiled code, where a step may end: in a
compiled optimizer.

Some of torch's own functions compile their argument before they run it, even in eager code: those of control flow, and
flex attention.  They need the script's own stance: without compilation they raise, or give no gradients to parameters
that a branch uses.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from torch.utils import _python_dispatch

#: Whether the compiler ignores a mode that answers ``ignore_compile_internals``.
_LOOKS_PAST_MODES = hasattr(_python_dispatch, "any_torch_dispatch_mode_on_stack")
#: Compiled code runs as compiled; an older torch compiles nothing new in this step.
AS_COMPILED = "default" if _LOOKS_PAST_MODES else "eager_on_recompile"
EAGER = "force_eager"
_USERS = "default"  # no stance is set: the script's own applies

#: Stances of a script that compile nothing: a stance of ours in their place would run compiled code that the script has
#: switched off, or hide the exception that it has asked for.
_KEPT = ("force_eager", "fail_on_recompile", "eager_on_recompile")

#: The longest time of an iteration: if it lasts longer, the job has ended its training.
DEADLINE_S = 600.0


class Stance:
    """Sets the compiler's stance for a step, and restores the user's stance afterwards, or when it is given up."""

    def __init__(
        self,
        name: str,
        may_give_up: Callable[[], bool],
        deadline_s: float = DEADLINE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``may_give_up`` is called after the deadline, until it returns True."""
        self.name = name
        self._may_give_up = may_give_up
        self._deadline_s = deadline_s
        self._now = now
        self._until: float | None = None  # while acquired
        self._ours: Any = None  # while set
        self._before: Any = None

    @property
    def is_relevant(self) -> bool:
        """Whether anything may have been compiled."""
        return "torch._dynamo.eval_frame" in sys.modules

    def acquire(self) -> None:
        if self.is_relevant:
            self._set()
            self._until = self._now() + self._deadline_s

    def release(self) -> None:
        self._until = None
        self._restore()

    def give_up_if_late(self) -> None:
        """Releases the stance if the step does not end.  Called when models and compiled code begin to run: a timer
        would add a thread to the script.
        """
        if self._until is not None and self._now() > self._until and self._may_give_up():
            self.release()

    def pause(self) -> None:
        """Evaluation may be compiled anew, as it would be without us."""
        self._restore()

    def resume(self) -> None:
        if self._until is not None and self._ours is None:
            self._set()

    def _set(self) -> None:
        if self.name != _USERS:
            frames = _eval_frame()
            if self.name == AS_COMPILED and frames._stance.stance in _KEPT:
                return
            self._before = frames._stance
            self._ours = _except_torchs_own(frames.DynamoStance)(self.name, self._before)
            frames._stance = self._ours

    def _restore(self) -> None:
        """Restores the stance before, unless the script has set another one meanwhile."""
        ours = self._ours
        if ours is not None:
            if _eval_frame()._stance is ours:
                _eval_frame()._stance = self._before
            self._ours = None


#: Modules of torch's functions that compile their argument and run it at once.
_COMPILE_THEMSELVES = ("torch._higher_order_ops.", "torch.nn.attention.")
_READERS = ("distprof.probes.compiled.stance", "torch._dynamo.eval_frame")


def _is_called_by_torchs_own() -> bool:
    """Returns whether one of these functions makes the call of compiled code that looks up the stance."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _READERS:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").startswith(_COMPILE_THEMSELVES)


@cache
def _except_torchs_own(stance: Any) -> Any:
    """Returns a stance class that gives the script's own stance to torch's functions that compile their argument."""

    def field(name: str) -> property:
        return property(lambda self: getattr(self.before if _is_called_by_torchs_own() else self.held, name))

    class StanceExceptTorchsOwn:
        def __init__(self, name: str, before: Any) -> None:
            self.held, self.before = stance(name), before

    for name in stance.__dataclass_fields__:
        setattr(StanceExceptTorchsOwn, name, field(name))
    return StanceExceptTorchsOwn


def _eval_frame() -> Any:
    return sys.modules["torch._dynamo.eval_frame"]
