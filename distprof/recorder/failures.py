"""What an exception in distprof's code does to the recording of a rank.  The job goes on in any case."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Sequence

from distprof.console import say
from distprof.errors import said
from distprof.external_exceptions import came_from_outside
from distprof.recorder.probe_switch import ProbeSwitch
from distprof.recorder.recorded_rank import RecordedRank
from distprof.recorder.step_clock import StepClock
from distprof.records import FORWARD, Error


class Failures:
    """Ends the recording with the first error of distprof's own; an exception from outside only costs an iteration."""

    def __init__(
        self,
        rank: RecordedRank,
        steps: StepClock,
        probes: ProbeSwitch,
        watch_optimizers_only: Callable[[], None],
        detach: Sequence[Callable[[], None]],
    ) -> None:
        """``detach`` removes everything from the process, one call after the other."""
        self.has_given_up = False
        self._rank = rank
        self._steps = steps
        self._probes = probes
        self._watch_optimizers_only = watch_optimizers_only
        self._detach = detach

    def handle(self, where: str, error: BaseException) -> None:
        """Handles an exception: distprof's own ends the recording, one from outside is raised again."""
        if not came_from_outside(error):
            self._give_up(where, error)
            return
        if self._rank.writing:
            self._give_up(where, error)
        else:
            self._skip_iteration()
        raise error

    def _skip_iteration(self) -> None:
        """Skips the running iteration, of which some events were missed; the next one can be recorded.

        The exception from outside is raised afterwards: nothing here may take its place.
        """
        with contextlib.suppress(Exception):
            self._rank.write(*self._probes.abandon())
            if self._steps.mode == FORWARD and not self._rank.end_is_written:
                self._probes.watch_models()
            else:
                self._watch_optimizers_only()

    def _give_up(self, where: str, error: BaseException) -> None:
        """Ends the recording: keeps what was recorded, reports once, and detaches everything.

        What fails meanwhile is not reported: it follows from ``error``.
        """
        rank = self._rank
        output, rank.output = rank.output, None
        probe = self._probes.probe
        abandon = (probe.abandon,) if probe is not None else ()
        for step in (*abandon, *self._detach):
            with contextlib.suppress(Exception):
                step()
        if not self.has_given_up:
            self.has_given_up = True
            who = f"rank {rank.identity.rank}" if rank.identity else "this process"
            say(f"{who} stops recording, the job goes on: {type(error).__name__} in {where}: {said(error)}")
        what = f"{type(error).__name__}: {said(error)}"
        if rank.heartbeat is not None:
            rank.heartbeat.failed(where, what, self._steps.iteration)
        if output is not None:
            with contextlib.suppress(Exception):
                output.write(Error(where, what, "".join(traceback.format_exception(error))))
                output.close()
