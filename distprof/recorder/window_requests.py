"""Requests for further windows: those of the script, and those that the daemon passes on."""

from __future__ import annotations

from distprof.recorder.recorded_rank import RecordedRank
from distprof.recorder.step_clock import StepClock
from distprof.recorder.windows.capture_plan import WindowRefused, capture_plan
from distprof.records import FORWARD


class WindowRequests:
    """Plans the windows that are asked for, or refuses them with the reason."""

    def __init__(self, rank: RecordedRank, steps: StepClock) -> None:
        self.last_is_complete = False  # the last window, and no other one has begun
        self._rank = rank
        self._steps = steps
        self._recording_has_ended = False

    def refuse_all(self) -> None:
        """Refuses every further window, because the recording has ended."""
        self._recording_has_ended = True

    def plan(self, start: int, counted: int, timed: int, number: int | None = None, traced: int = 0) -> int:
        """Plans a window, from any thread: ``counted`` (0 or 1), ``timed`` and ``traced`` iterations, from number
        ``start`` on.

        It is taken up at the end of the window before, or at the next boundary of an iteration, on the thread that
        trains.  ``number`` is that of the window, by default the next one: ranks of which some missed a window agree on
        it.  Returns the number of the window.  Raises WindowRefused, with the reason, for one that cannot be
        recorded.
        """
        identity, steps = self._rank.identity, self._steps
        if counted not in (0, 1) or timed < 0 or traced < 0 or counted + timed + traced == 0:
            raise WindowRefused("a window needs an iteration to count, to time or to trace, and counts one at most")
        if identity is None:
            raise WindowRefused("this process is not recorded: it has run no model as a rank")
        if self._rank.output is None or self._recording_has_ended:
            raise WindowRefused("the recording of this process has ended")
        if self.last_is_complete and steps.mode == FORWARD:
            raise WindowRefused(
                "no iteration is seen any more: no optimizer has stepped, and models are not watched after a window"
            )
        following = steps.window.number + 1
        if number is not None and number < following:
            raise WindowRefused(f"window {number} has been: the next one is window {following}")
        number = following if number is None else number
        plan = capture_plan(start, counted, timed, identity.world_size, number, traced)
        steps.plan_window(plan)
        return plan.number

    def answer(self) -> None:
        """Plans the window that a new request of the daemon asks for, and answers the request."""
        heartbeat = self._rank.heartbeat
        request = None if heartbeat is None else heartbeat.request()
        if heartbeat is None or request is None:
            return
        try:
            number = self.plan(request.start, request.counted, request.timed, request.window, request.traced)
            heartbeat.answer(request, self._steps.iteration, window=number)
        except WindowRefused as refused:
            heartbeat.answer(request, self._steps.iteration, refusal=str(refused))
