"""Records the collectives, sends and receives of a window of timed steps, from the sources that see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import get_ident

import numpy as np

from distprof.clock import Anchor, Clock, anchor
from distprof.hooks.patches import OnError
from distprof.probes.collectives.called_ops import CalledOps, KnownOps
from distprof.probes.collectives.columns import columns_of
from distprof.probes.collectives.flight_recorder import FlightRecorder
from distprof.probes.collectives.messages import Messages
from distprof.probes.collectives.protocol import Seen, Source
from distprof.records import Array, Collectives, CollectiveWindow, Group, Record
from distprof.topology import process_groups

#: A larger change of wall minus monotonic clock within a step is a jump: stamps near it cannot be converted.
_JUMP_NS = 10_000_000
_CLOCK_WAS_SET = "the wall clock was set in the window, and collectives are stamped by it"


@dataclass(frozen=True)
class _TimedStep:
    iteration: int
    mode: str
    start_ns: int
    end_ns: int


class CollectiveRecording:
    """Records one window: :meth:`open`, then :meth:`step_begins` and :meth:`step_ended` for each step, then
    :meth:`close` and :meth:`records`.
    """

    def __init__(
        self,
        clock: Clock,
        collectives: Source,
        messages: Source,
        world_size: int,
        window: int = 0,
        called: CalledOps | None = None,
    ) -> None:
        """``window`` is the number of the window, for its records; ``called`` sees ops while they run."""
        self._window = window
        self._clock = clock
        self._collectives, self._messages, self._called = collectives, messages, called
        self._world_size = world_size
        self._steps: list[_TimedStep] = []
        self._anchors: list[Anchor] = []
        self._groups: dict[str, Group] = {}
        self._seen: tuple[Seen, Seen] | None = None

    def open(self) -> None:
        self._seen = None
        self._note_groups()
        now = anchor(self._clock)
        self._anchors.append(now)
        for source in (self._collectives, self._messages):
            source.open(now.wall_ns if source.on_wall_clock else now.mono_ns)
        if self._called is not None:
            self._called.open()

    def step_begins(self) -> None:
        if self._collectives.on_wall_clock and not self._collectives.unseen:
            self._anchors.append(anchor(self._clock))

    def step_ended(self, iteration: int, mode: str, start_ns: int, end_ns: int) -> None:
        """Ends a step, which ran from ``start_ns`` to ``end_ns`` on the monotonic clock."""
        self._steps.append(_TimedStep(iteration, mode, start_ns, end_ns))
        self._collectives.step_ended()
        self._messages.step_ended()

    def close(self) -> None:
        """Ends the window, if it has begun and not ended; whatever fails, nothing stays patched."""
        if self._anchors and self._seen is None:
            if self._called is not None:
                self._called.close()
            messages = self._messages.close()
            self._seen = self._collectives.close(), messages
            self._anchors.append(anchor(self._clock))
            self._note_groups()

    def known_ops(self) -> KnownOps:
        """Returns what is known of the ops of the last collectives."""
        return KnownOps() if self._called is None else self._called.known()

    def records(self) -> list[Record]:
        """Returns the records of the window once it has ended, each once."""
        if self._seen is None or not self._steps:
            return []
        (collectives, messages), unseen = self._seen, self._collectives.unseen
        shifts_ns = [each.wall_ns - each.mono_ns for each in self._anchors]
        if self._collectives.on_wall_clock and not unseen and np.abs(np.diff(shifts_ns)).max() > _JUMP_NS:
            unseen = _CLOCK_WAS_SET
        window = CollectiveWindow(
            groups=tuple(self._groups.values()),
            source="" if unseen else self._collectives.name,
            unseen=unseen,
            message_source="" if self._messages.unseen else self._messages.name,
            message_unseen=self._messages.unseen,
            entries=len(collectives.entries),
            lost=sum(loss.entries for loss in collectives.losses),
            capacity=collectives.capacity,
            reads=collectives.reads,
            read_ns=collectives.read_ns,
            timed=collectives.timed,
            clock_shift_ns=shifts_ns[-1] - shifts_ns[0],
            window=self._window,
        )
        nothing_seen = unseen and self._messages.unseen
        steps = [] if nothing_seen else self._step_records(Seen() if unseen else collectives, messages)
        self._steps = []
        return [window, *steps]

    def _note_groups(self) -> None:
        """Keeps the groups of now: a script may destroy some before the window ends."""
        found = process_groups.records(process_groups.groups(), self._world_size)
        self._groups.update({group.name: group for group in found})

    def _step_records(self, collectives: Seen, messages: Seen) -> list[Collectives]:
        entries = [*collectives.entries, *messages.entries]
        moments_ns = np.concatenate(
            [
                self._monotonic_ns(self._collectives, [entry.moment_ns for entry in collectives.entries]),
                self._monotonic_ns(self._messages, [entry.moment_ns for entry in messages.entries]),
            ]
        )
        order = np.argsort(moments_ns, kind="stable")
        entries, moments_ns = [entries[place] for place in order], moments_ns[order]
        after_ns, before_ns = (
            self._monotonic_ns(self._collectives, [getattr(loss, side) for loss in collectives.losses])
            for side in ("after_ns", "before_ns")
        )
        lost = np.array([loss.entries for loss in collectives.losses], np.int64)
        records = []
        for step in self._steps:
            first, end = np.searchsorted(moments_ns, [step.start_ns, step.end_ns])
            in_step = (after_ns < step.end_ns) & (before_ns > step.start_ns)
            columns = columns_of(entries[first:end], moments_ns[first:end])
            lost_here = int(lost[in_step].sum())
            records.append(Collectives(step.iteration, step.mode, **columns, lost=lost_here, window=self._window))
        return records

    def _monotonic_ns(self, source: Source, moments_ns: Sequence[int]) -> Array:
        """Returns moments of a source on the monotonic clock, int64; the wall clock may drift from one anchor to the
        next, and moments outside of the window are those of its begin or its end.
        """
        found: Array = np.array(moments_ns, np.int64)
        if not source.on_wall_clock:
            return found
        first = self._anchors[0]
        wall_ns = [each.wall_ns - first.wall_ns for each in self._anchors]  # floats of differences are exact
        mono_ns = [each.mono_ns - first.mono_ns for each in self._anchors]
        converted: Array = np.rint(np.interp(found - first.wall_ns, wall_ns, mono_ns)).astype(np.int64) + first.mono_ns
        return converted


class NotRecorded:
    """A source that sees nothing, because the user wants it so."""

    name, on_wall_clock = "", False

    def __init__(self, unseen: str) -> None:
        self.unseen = unseen

    def open(self, began_ns: int) -> None:
        pass

    def step_ended(self) -> None:
        pass

    def close(self) -> Seen:
        return Seen()


def new_recording(
    clock: Clock,
    world_size: int,
    on_error: OnError,
    window: int = 0,
    *,
    wanted: bool,
    timing: bool = False,
    reducing: Sequence[object] = (),
) -> CollectiveRecording:
    """Returns the recording of a window of the calling thread, the one that trains.

    ``reducing`` are the groups that DDP's reducers use, as far as nothing else does without being seen.
    """
    nothing = NotRecorded("collectives were not to be recorded")
    collectives: Source = nothing
    messages: Source = nothing
    called = None
    if wanted:
        thread, called = get_ident(), CalledOps(on_error, reducing)
        collectives, messages = FlightRecorder(thread, timing=timing), Messages(thread, clock.mono_ns, on_error)
    return CollectiveRecording(clock, collectives, messages, world_size, window, called)
