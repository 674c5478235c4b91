"""The writer of a shard, what it planned to record, and how the recording ended."""

from __future__ import annotations

from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Index, Natural, Size
from distprof.records.version import MAGIC, SCHEMA_VERSION

#: The evidence for the rank of a process.
ALONE = "alone"  # nothing says that there are other ranks
OTHER_GROUP = "other group"  # a process group contradicts the environment
ENVIRONMENT = "environment"  # the variables of its launcher
GROUP = "group"  # the process group that it has joined
CLAIMS = (ALONE, OTHER_GROUP, ENVIRONMENT, GROUP)  # in ascending strength

#: Why the recording of a rank ends that never called a model; a model inside a compiled function is not called.
NO_MODULE = "no module was called"
ONLY_COMPILED = "no module was called, compiled functions ran"


@dataclass(frozen=True)
class Header:
    """Record 0 of every shard: its writer, the machine, and the clocks."""

    KIND: ClassVar[str] = "header"
    run_id: str
    rank: Index
    world_size: Size
    local_rank: Index = 0
    local_world_size: Size = 1
    node_rank: Index = 0
    claim: str = ENVIRONMENT
    generation: Natural = 0
    launch: str = ""  # the id of the launcher that started it; empty where that is not known
    launched_ns: Natural = 0  # when that launcher started, wall time
    host: str = ""
    pid: Natural = 0
    script: str = ""
    device: str = "cpu"  # torch's device type
    device_name: str = ""
    writer: str = ""  # distprof's version
    python: str = ""
    torch: str = ""
    wall_ns: Natural = 0  # the anchor: one instant on both clocks
    mono_ns: Natural = 0
    magic: str = MAGIC
    schema: tuple[Natural, ...] = SCHEMA_VERSION
    clock_domain: str = ""  # the same in all processes that read the same clocks; empty where it is not known


@dataclass(frozen=True)
class Plan:
    """The iterations of one window that this rank plans to record; the window is *complete* when it has all of them.

    ``start`` is the number of the first iteration.  Then come ``counted`` iterations, ``settling`` ones, and ``timed``
    ones.  ``settling`` iterations are timed and not used, because a rank may wait in them for ranks that are still
    counting.
    """

    KIND: ClassVar[str] = "plan"
    start: Natural
    counted: Natural
    timed: Natural
    settling: Natural = 0
    window: Natural = 0  # the number of the window
    traced: Natural = 0  # iterations after these of which torch.profiler makes a trace, on the ranks that were asked to

    @property
    def first_used(self) -> int:
        """The number of the first iteration whose times are used."""
        return self.start + self.counted + self.settling


@dataclass(frozen=True)
class Error:
    """The recorder failed, reported it once, and detached; earlier records remain valid."""

    KIND: ClassVar[str] = "error"
    where: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class End:
    """The recording ended in order: ``reason`` is ``window complete``, ``exit``, or NO_MODULE or ONLY_COMPILED.

    ``failure`` is the exception that ended the script, with its kind; empty if none did.
    """

    KIND: ClassVar[str] = "end"
    reason: str
    iterations: Natural  # run so far, recorded or not
    failure: str = ""
