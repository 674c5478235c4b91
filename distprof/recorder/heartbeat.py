"""The heartbeat of a rank: what it writes into its slot of the node's page, and the requests that it reads there.

Whatever fails, the rank goes on without a heartbeat, and says so once.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import torch

from distprof.clock import Clock
from distprof.config.settings import Settings
from distprof.console import say
from distprof.devices import gpu_uuid
from distprof.errors import said
from distprof.heartbeat.node_files import node_file
from distprof.heartbeat.page import open_page
from distprof.heartbeat.slot import GroupProgress, Request, State, WindowWork
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.probes.collectives.group_status import group_status
from distprof.probes.collectives.last_collective import CollectiveFinder
from distprof.probes.timing.probe import TimedProbe
from distprof.rank.identity import Identity
from distprof.recorder.look_thread import LookThread
from distprof.recorder.windows.capture_plan import CapturePlan, StepKind
from distprof.recorder.windows.figures import WindowFigures
from distprof.records import AXES, Record, Topology
from distprof.run_folder import RunFolder
from distprof.topology.process_groups import groups

#: Of the kinds of steps that are not timed.
_STATES = {StepKind.COUNTED: State.COUNTED, StepKind.TRACED: State.TRACED}
#: Time between two looks at what the rank does.
_LOOK_S = 0.5
_LONGEST_FAILURE = 1000


def open_heartbeat(
    settings: Settings, identity: Identity, device: torch.device, clock: Clock, evaluates: Callable[[], bool]
) -> Heartbeat | None:
    """Takes a slot in the page of this node.  Returns None without one, with a message if the job has a daemon.

    Called on the thread that trains; ``evaluates`` returns whether the model is in evaluation mode.
    """
    if not settings.daemon:
        return None
    try:
        node = node_file(RunFolder(Path(settings.run_dir)), settings.page_id)
        if node is None:
            return None  # who could not make the page has said so
        page = open_page(node.token)
        index = page.claim(identity.local_rank)
        if index is None:
            page.close()
            raise OSError("all slots of the page are taken")
        who = SlotRank(
            identity.rank,
            identity.world_size,
            identity.local_rank,
            identity.node_rank,
            socket.gethostname(),
            device.type,
            clock.wall_ns(),
            gpu_uuid(device),
        )
        slot = SlotWriter(page, index, who, clock.mono_ns)
        if identity.world_size > 1:  # a rank alone waits for nobody, and may have no other thread
            with contextlib.suppress(OSError, RuntimeError):  # then the daemon looks from outside
                LookThread(node.token, index, evaluates, lambda: _write_groups(slot)).start()
        return Heartbeat(slot, identity.rank)
    except Exception as error:
        say(f"rank {identity.rank} has no heartbeat, the job goes on: {said(error)}")
        return None


class Heartbeat:
    """Writes the slot of this rank, and watches what the rank does while iterations are timed."""

    def __init__(self, slot: SlotWriter, rank: int) -> None:
        self._slot: SlotWriter | None = slot
        self._rank = rank
        self._watcher: _Watcher | None = None
        self._figures = WindowFigures()
        self._unread: deque[Record] = deque()
        self._work = WindowWork()  # as the slot has it

    def iteration_begins(self, iteration: int, window: CapturePlan, *, counts: bool) -> bool:
        """Writes the beat.  Returns whether there may be a new request.  ``counts``: an iteration has ended."""
        slot = self._slot
        if slot is None:
            return False
        try:
            kind = window.kind(iteration)
            state = State.TIMED if kind is StepKind.TIMED else _STATES.get(kind, State.QUIET)
            return slot.iteration_begins(iteration, state, window.number, window.end, counts=counts)
        except Exception as error:
            return self._give_up(error)

    def iteration_follows(self, iteration: int) -> bool:
        """Writes the beat of an iteration that is of the same kind as the one before.  Returns as iteration_begins."""
        slot = self._slot
        try:
            return slot is not None and slot.iteration_follows(iteration)
        except Exception as error:
            return self._give_up(error)

    def request(self) -> Request | None:
        """Returns the request that is new, if it can be read."""
        try:
            return None if self._slot is None else self._slot.request()
        except Exception as error:
            self._give_up(error)
            return None

    def answer(self, request: Request, iteration: int, *, window: int = 0, refusal: str = "") -> None:
        self._write(lambda slot: slot.answer(request.number, iteration, window=window, refusal=refusal))

    def read_records(self, records: Sequence[Record]) -> None:
        """Takes over what is shown of records that are written to the shard.

        While iterations are timed, the watcher's thread reads them: there it costs no step.
        """
        if self._slot is None:
            return
        self._unread.extend(records)
        self._read_without_watcher()

    def _read_without_watcher(self) -> None:
        """Reads on the thread that trains, unless the watcher does: two threads never read at a time."""
        if self._watcher is None or not self._watcher.is_alive:
            self._read_unread()

    def _read_unread(self) -> None:
        slot, records = self._slot, [self._unread.popleft() for _ in range(len(self._unread))]
        if slot is None:
            return
        try:
            before = self._figures.last
            self._figures.read(records)
            if self._figures.last is not before:
                slot.counters(self._figures.last)
                self._write_work(self._figures.work())
            for record in records:
                if isinstance(record, Topology):
                    _write_place(record, slot)
        except Exception as error:
            self._give_up(error)

    def _write_work(self, work: WindowWork) -> None:
        if self._slot is not None and work != self._work:  # without a counted iteration there is none in any step
            self._work = work
            self._slot.work(work)

    def watch(self, probe: Callable[[], object], name_of: Callable[[int], str]) -> None:
        """Looks at what the rank does until its timed iterations are over."""
        slot = self._slot
        if slot is None or (self._watcher is not None and self._watcher.is_alive):
            return
        self._watcher = _Watcher(slot, probe, name_of, self._read_unread)
        try:
            self._watcher.start()
        except RuntimeError:  # there may be no more threads, or the interpreter ends
            self._watcher = None

    def pause(self, iteration: int) -> None:
        """Says that iterations are not seen until the next beat."""
        self._write(lambda slot: slot.ended(iteration, State.UNSEEN))

    def failed(self, where: str, message: str, iteration: int) -> None:
        """Says that the recording has ended with an error."""
        self._write(lambda slot: slot.error(where, message))
        self._end(iteration, State.UNSEEN)

    def finish(self, iteration: int) -> None:
        """Says that the rank has ended, and the exception that ended its script, if one did."""
        raised = script_failure()
        if raised:
            self._write(lambda slot: slot.error("the script", raised))
        self._end(iteration, State.ENDED)

    def _end(self, iteration: int, state: State) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._read_without_watcher()
        self._write(lambda slot: slot.ended(iteration, state))
        self._slot = None

    def _write(self, write: Callable[[SlotWriter], None]) -> None:
        if self._slot is not None:
            try:
                write(self._slot)
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> bool:
        self._slot = None
        say(f"rank {self._rank} has no heartbeat any more, the job goes on: {said(error)}")
        return False


def script_failure() -> str:
    """Returns the exception that has ended the script of this process, with its kind; empty if none has."""
    raised = getattr(sys, "last_value", None)
    return "" if raised is None else f"{type(raised).__name__}: {said(raised)}"[:_LONGEST_FAILURE]


class _Watcher:
    """Looks at the running module and collective now and then, on a thread of its own, and shows what the records say.

    The thread is none of :mod:`threading`: a script may count those that it knows.
    """

    def __init__(
        self, slot: SlotWriter, probe: Callable[[], object], name_of: Callable[[int], str], show: Callable[[], None]
    ) -> None:
        self._slot = slot
        self._probe = probe
        self._name_of = name_of
        self._show = show
        self._collectives = CollectiveFinder()
        self._stopped, self._is_over = Event(), Event()

    @property
    def is_alive(self) -> bool:
        return not self._is_over.is_set()

    def start(self) -> None:
        """Raises RuntimeError if there are no more threads."""
        start_new_thread(self._run, ())

    def stop(self) -> None:
        self._stopped.set()
        self._is_over.wait(_LOOK_S)

    def _run(self) -> None:
        try:
            while isinstance(probe := self._probe(), TimedProbe) and not self._stopped.is_set():
                phase, row = probe.activity()
                self._slot.activity(phase, "" if row is None else self._name_of(row))
                self._slot.collective(self._collectives.look(probe.known_ops()))
                self._show()
                self._stopped.wait(_LOOK_S)
            self._slot.activity("", "")
            self._slot.collective(None)
            self._show()
        except Exception:  # what is shown stays as it is, and grows old
            return
        finally:
            self._is_over.set()


def _write_groups(slot: SlotWriter) -> None:
    slot.groups([GroupProgress(*group) for group in group_status(groups())])


def _write_place(topology: Topology, slot: SlotWriter) -> None:
    """Writes the coordinates on the axes that divide something: ``dp 1, tp 0``."""
    axes = [axis for axis in AXES if topology.sizes.get(axis, 1) > 1]
    slot.place(", ".join(f"{axis} {topology.coordinates.get(axis, 0)}" for axis in axes))
