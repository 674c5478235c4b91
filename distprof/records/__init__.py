"""Every record that a rank writes, as plain frozen dataclasses: one file for each subject.

The names of the fields are the keys of the record in the shard; ``docs/FORMAT.md`` describes them for readers in other
languages, and a test compares that page with these files.  Units are suffixes: ``_ns``, ``_bytes``, ``_macs``,
``_flops``.  Other modules import from this package, not from its files.

A *row* is the index of a module in the tree: :class:`Tree` records append rows, and every bulk array over modules has
an entry for each row that was known when it was written (a shorter array means zeros for later rows).
"""

from __future__ import annotations

from typing import get_args

from distprof.records.clock import ClockOffset
from distprof.records.collectives import (
    LONG_TURN_NS,
    NO_ROW,
    OTHER_THREAD,
    TRAINING_THREAD,
    UNKNOWN_THREAD,
    Collectives,
    CollectiveWindow,
    Pauses,
    Timeline,
)
from distprof.records.counts import FLOPS_PER_MAC, Counts, DeviceWork, Generated, OpRow, Ops
from distprof.records.experts import (
    ExpertLayer,
    ExpertLayers,
    ExpertLoad,
    ExpertRouting,
    LayerCalls,
    LayerRouting,
    RouterFigures,
    Suspect,
)
from distprof.records.fields import INT64, LIMIT, MAX_DEPTH, Amount, Array, Bounds, Index, Natural, Row, Size
from distprof.records.model import (
    DENSE,
    EMBEDDING,
    EXPERT,
    KINDS,
    ROUTER,
    SHARED,
    ModuleRow,
    Parameter,
    Parameters,
    Tree,
)
from distprof.records.rank import (
    ALONE,
    CLAIMS,
    ENVIRONMENT,
    GROUP,
    NO_MODULE,
    ONLY_COMPILED,
    OTHER_GROUP,
    End,
    Error,
    Header,
    Plan,
)
from distprof.records.steps import FORWARD, PHASES, TRAINING, Memory, MemoryUnknown, Step, WarmupStep
from distprof.records.topology import (
    ASSUMED,
    AXES,
    DECLARED,
    DEVICE_MESH,
    PARAMETERS,
    PROCESS_GROUPS,
    WORLD_AXES,
    Group,
    Mesh,
    OwnAxes,
    Stage,
    Topology,
    expert_position,
)
from distprof.records.version import MAGIC, READ_BY, SCHEMA_HISTORY, SCHEMA_VERSION
from distprof.records.windows import WindowSummary

__all__ = [
    "ALONE",
    "ASSUMED",
    "AXES",
    "CLAIMS",
    "COMPRESSED",
    "DECLARED",
    "DENSE",
    "DEVICE_MESH",
    "EMBEDDING",
    "ENVIRONMENT",
    "EXPERT",
    "FLOPS_PER_MAC",
    "FORWARD",
    "GROUP",
    "INT64",
    "KINDS",
    "LIMIT",
    "LONG_TURN_NS",
    "MAGIC",
    "MAX_DEPTH",
    "NO_MODULE",
    "NO_ROW",
    "ONLY_COMPILED",
    "OTHER_GROUP",
    "OTHER_THREAD",
    "PARAMETERS",
    "PHASES",
    "PROCESS_GROUPS",
    "READ_BY",
    "RECORDS",
    "ROUTER",
    "SCHEMA_HISTORY",
    "SCHEMA_VERSION",
    "SHARED",
    "TRAINING",
    "TRAINING_THREAD",
    "UNKNOWN_THREAD",
    "WORLD_AXES",
    "Amount",
    "Array",
    "Bounds",
    "ClockOffset",
    "CollectiveWindow",
    "Collectives",
    "Counts",
    "DeviceWork",
    "End",
    "Error",
    "ExpertLayer",
    "ExpertLayers",
    "ExpertLoad",
    "ExpertRouting",
    "Generated",
    "Group",
    "Header",
    "Index",
    "LayerCalls",
    "LayerRouting",
    "Memory",
    "MemoryUnknown",
    "Mesh",
    "ModuleRow",
    "Natural",
    "OpRow",
    "Ops",
    "OwnAxes",
    "Parameter",
    "Parameters",
    "Pauses",
    "Plan",
    "Record",
    "RouterFigures",
    "Row",
    "Size",
    "Stage",
    "Step",
    "Suspect",
    "Timeline",
    "Topology",
    "Tree",
    "WarmupStep",
    "WindowSummary",
    "expert_position",
]

Record = (
    Header
    | Plan
    | Topology
    | Tree
    | Parameters
    | Counts
    | Ops
    | Step
    | WarmupStep
    | Memory
    | MemoryUnknown
    | Timeline
    | Collectives
    | CollectiveWindow
    | Pauses
    | ExpertLayers
    | ExpertLoad
    | ExpertRouting
    | ClockOffset
    | WindowSummary
    | Error
    | End
)

RECORDS: dict[str, type[Record]] = {record.KIND: record for record in get_args(Record)}

#: The kinds whose payloads are compressed: they describe what does not change from step to step.
COMPRESSED = frozenset(
    record.KIND for record in (Topology, Tree, Parameters, Counts, ExpertLayers, CollectiveWindow, Ops)
)
