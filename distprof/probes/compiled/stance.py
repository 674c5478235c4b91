"""How compiled code runs during a counted step: as it was compiled, or in eager form.

A torch whose compiler looks past modes that ask for it needs nothing to do the former: what is new in this step is
compiled as ever.  An older one leaves code that it meets under a dispatch mode eager for the rest of the job, and
raises for ``fullgraph=True``; with a stance it does neither.  A stance is what each call of compiled code looks up as
it begins.  torch's own function refuses to set it inside of such a call, and there a step may well end: in a compiled
optimizer.

Some of torch's own functions compile what they are given before they run it, in eager code, too: those of control flow,
and flex attention.  No stance of ours is for them: run as they are, they raise, or give no gradients to the parameters
that a branch uses.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from torch.utils import _python_dispatch

#: Whether the compiler looks past a mode that answers ``ignore_compile_internals``.
_LOOKS_PAST_MODES = hasattr(_python_dispatch, "any_torch_dispatch_mode_on_stack")
#: What is compiled runs so; in an older torch, what is not, is not compiled in this step.
AS_COMPILED = "default" if _LOOKS_PAST_MODES else "eager_on_recompile"
EAGER = "force_eager"
_USERS = "default"  # no stance is set: the script's own holds

#: Stances of a script that compile nothing: in their place, ours would run compiled what the script keeps from that, or
#: keep the exception from it that it has asked for.
_KEPT = ("force_eager", "fail_on_recompile", "eager_on_recompile")

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
        if self.name != _USERS:
            frames = _eval_frame()
            if self.name == AS_COMPILED and frames._stance.stance in _KEPT:
                return
            self._before = frames._stance
            self._ours = _but_for_torchs_own(frames.DynamoStance)(self.name, self._before)
            frames._stance = self._ours

    def _give_back(self) -> None:
        """Unless the script has set another one in the meantime."""
        ours = self._ours
        if ours is not None:
            if _eval_frame()._stance is ours:
                _eval_frame()._stance = self._before
            self._ours = None


#: Where torch compiles what it is given, to run it at once.
_COMPILE_THEMSELVES = ("torch._higher_order_ops.", "torch.nn.attention.")
_READERS = ("distprof.probes.compiled.stance", "torch._dynamo.eval_frame")


def _called_by_torchs_own() -> bool:
    """Whether the call of compiled code that asks for the stance is one that torch makes for itself."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _READERS:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").startswith(_COMPILE_THEMSELVES)


@cache
def _but_for_torchs_own(stance: Any) -> Any:
    """A kind of stance that answers with the script's own where torch compiles for itself."""

    def field(name: str) -> property:
        return property(lambda self: getattr(self.before if _called_by_torchs_own() else self.held, name))

    class ButForTorchsOwn:
        def __init__(self, name: str, before: Any) -> None:
            self.held, self.before = stance(name), before

    for name in stance.__dataclass_fields__:
        setattr(ButForTorchsOwn, name, field(name))
    return ButForTorchsOwn


def _eval_frame() -> Any:
    return sys.modules["torch._dynamo.eval_frame"]
