"""The collectives of one timed step, its long turns and phases on one clock, and its pauses.

All moments in these records (``_ns`` fields that name an instant) are nanoseconds on the rank's monotonic clock, on
which the modules of a step are timed; ``Header.wall_ns + (moment - Header.mono_ns)`` is the same moment since 1970.
Ranks of one Linux host share the monotonic clock, unless a container has a time namespace of its own.
"""

from __future__ import annotations

from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Array, Bulky, Natural, bulk
from distprof.records.topology import Group

#: Owns the turns that are of no module.
NO_ROW = (1 << 31) - 1
#: The thread that enqueued a collective.
TRAINING_THREAD, OTHER_THREAD, UNKNOWN_THREAD = 1, 0, -1


@dataclass(frozen=True, eq=False)
class Collectives(Bulky):
    """What this rank enqueued in one timed step, in the order of ``enqueued_ns``: collectives, sends and receives.

    Every array has an entry for each of them; ``duration_ns`` may be empty, and ``waited_from_ns`` with
    ``waited_until_ns``.  ``group`` is an index in ``group_names``, ``op`` one in ``ops`` (``all_reduce``,
    ``all_gather``, ``reduce_scatter``, ``all_to_all``, ``broadcast``, ``barrier``, ``send``, ``recv``, ... without
    the backend's prefix, as the source names them: gloo's reduce_scatter reads ``all_reduce``).

    A collective is the same on all members of its group if (group name, members, ``number``) is the same;
    ``number`` is torch's sequence number of it in the group, from the start of the job.  Members are in the
    :class:`CollectiveWindow`.  A send or receive has a ``peer``; its ``number`` is its number, from 0, among this
    rank's sends to (or receives from) that peer in the group with that ``tag`` since the window began: the send and
    the receive with equal numbers are the two ends of one message.

    The time from ``waited_from_ns`` to ``waited_until_ns`` is the training thread's wait for this send or receive in
    Python: inside a blocking call, or inside ``Work.wait``.

    ``lost`` is the most that this step may lack: entries that were overwritten before they were read.
    """

    KIND: ClassVar[str] = "collectives"
    iteration: Natural
    mode: str
    group_names: tuple[str, ...] = ()  # torch's
    ops: tuple[str, ...] = ()
    group: Array = bulk("<i4")
    number: Array = bulk("<i8")
    op: Array = bulk("<i4")
    enqueued_ns: Array = bulk("<i8")
    input_bytes: Array = bulk("<i8")  # of the tensors that this rank passed in
    output_bytes: Array = bulk("<i8")  # of the tensors that it received the result in
    peer: Array = bulk("<i4")  # global rank; -1: a collective
    tag: Array = bulk("<i4")  # of a send or receive, else 0
    thread: Array = bulk("<i4")  # TRAINING_THREAD, OTHER_THREAD or UNKNOWN_THREAD
    duration_ns: Array = bulk("<i8")  # on the device, from start to completion; -1: not known
    waited_from_ns: Array = bulk("<i8")  # 0: no wait was seen
    waited_until_ns: Array = bulk("<i8")
    lost: Natural = 0
    window: Natural = 0


@dataclass(frozen=True)
class CollectiveWindow:
    """How the collectives of the timed steps were seen.  The last one of each window is valid.

    ``source`` and ``message_source`` name where collectives, and sends and receives, come from.  Each is empty where
    nothing could be seen, and then ``unseen`` or ``message_unseen`` is the reason, a sentence.  Without a reason, a
    step without entries had none; with both reasons, steps have no :class:`Collectives`.
    """

    KIND: ClassVar[str] = "collective_window"
    groups: tuple[Group, ...] = ()  # the groups of this rank; no ranks: all of the job, in order
    source: str = ""
    unseen: str = ""
    message_source: str = ""
    message_unseen: str = ""
    entries: Natural = 0  # read from the source of collectives, those between and before the steps included
    lost: Natural = 0  # overwritten before they were read, in the whole window
    capacity: Natural = 0  # entries that the source can hold; 0: not known
    reads: Natural = 0  # how often the source was read
    read_ns: Natural = 0  # the time that all reads took
    timed: bool = False  # whether the device's timing was on
    clock_shift_ns: int = 0  # change of wall minus monotonic clock over the window; enqueue times are corrected by it
    window: Natural = 0


@dataclass(frozen=True, eq=False)
class Timeline(Bulky):
    """One timed step on the monotonic clock: its phases, and the long turns of the thread that trains.

    Phase ``phase_names[phase[i]]`` has the time from ``phase_start_ns[i]`` to the next start, the last one to
    ``end_ns``; the first starts at ``start_ns``.

    A *turn* is the time from one event of a module (its call, its return, the arrival of its gradient) to the next;
    the thread has shown no sign of life within a turn but the collectives that it enqueued there, which readers find
    in :class:`Collectives`.  All turns of :data:`LONG_TURN_NS` or more are here, in order: ``turn_owner`` is a row,
    ``~row`` in its backward, or NO_ROW; ``turn_number`` is the number of the turn, from 0, among those of this owner
    in the step, long or short.
    """

    KIND: ClassVar[str] = "timeline"
    iteration: Natural
    mode: str
    start_ns: Natural = 0
    end_ns: Natural = 0
    phase_names: tuple[str, ...] = ()
    phase: Array = bulk("<i4")
    phase_start_ns: Array = bulk("<i8")
    turn_owner: Array = bulk("<i4")
    turn_number: Array = bulk("<i8")
    turn_start_ns: Array = bulk("<i8")
    turn_end_ns: Array = bulk("<i8")
    unseen: str = ""  # why there are no turns, where the clock of the modules cannot say: the times are a device's
    window: Natural = 0


#: Shorter turns are not kept.
LONG_TURN_NS = 1_000_000


@dataclass(frozen=True, eq=False)
class Pauses(Bulky):
    """What stopped the thread that trains in one timed step and has a name; a step without any has no record.

    ``names[name[i]]`` is what happened from ``start_ns[i]`` to ``end_ns[i]``: ``garbage collection, generation 2``,
    ``compilation``.
    """

    KIND: ClassVar[str] = "pauses"
    iteration: Natural
    mode: str
    names: tuple[str, ...] = ()
    name: Array = bulk("<i4")
    start_ns: Array = bulk("<i8")
    end_ns: Array = bulk("<i8")
    window: Natural = 0
