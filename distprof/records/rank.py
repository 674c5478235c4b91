"""Who writes a shard, what it set out to record, and how that ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distprof.records.fields import Index, Natural, Size
from distprof.records.version import MAGIC, SCHEMA_VERSION

#: What makes a process the rank that it says it is.
ALONE = "alone"  # nobody said that there are others
OTHER_GROUP = "other group"  # a process group that contradicts the environment
ENVIRONMENT = "environment"  # its launcher's variables
GROUP = "group"  # the process group that it has joined
CLAIMS = (ALONE, OTHER_GROUP, ENVIRONMENT, GROUP)  # the stronger, the later

#: Why a rank's recording ends that never called a model; one in a compiled function is called by nobody.
NO_MODULE = "no module was called"
ONLY_COMPILED = "no module was called, compiled functions ran"


@dataclass(frozen=True)
class Header:
    """Record 0 of every shard: who wrote it, where, and on which clocks."""

    KIND: ClassVar[str] = "header"
    run_id: str
    rank: Index
    world_size: Size
    local_rank: Index = 0
    local_world_size: Size = 1
    node_rank: Index = 0
    claim: str = ENVIRONMENT
    generation: Natural = 0
    launch: str = ""  # the launcher that started it: one of a job's; empty where that is not known
    launched_ns: Natural = 0  # when that launcher began, wall time
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


@dataclass(frozen=True)
class Plan:
    """What this rank set out to record; a rank is *complete* when it recorded all of it.

    ``settling``: so many iterations more are timed before the ``timed`` ones, and not used: in them a rank may wait for
    others that still count.
    """

    KIND: ClassVar[str] = "plan"
    warmup: Natural
    counted: Natural
    timed: Natural
    settling: Natural = 0


@dataclass(frozen=True)
class Error:
    """The recorder failed, said so once, and detached; what was written before it still holds."""

    KIND: ClassVar[str] = "error"
    where: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class End:
    """The rank wrote all it had to: ``reason`` is ``window complete``, ``exit``, or NO_MODULE or ONLY_COMPILED."""

    KIND: ClassVar[str] = "end"
    reason: str
    iterations: Natural  # that the rank ran, recorded or not, when this was written
