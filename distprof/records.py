"""Every record that a rank writes, as plain frozen dataclasses.

The names of the fields are the keys of the record in the shard; ``docs/FORMAT.md`` describes them for readers in other
languages and a test holds that page against this file.  Units are suffixes: ``_ns``, ``_bytes``, ``_macs``, ``_flops``.
Bulk numbers are one-dimensional numpy arrays, little-endian in the file, with the dtype given here by :func:`bulk`.

A *row* is the index of a module in the tree: :class:`Tree` records append rows, and every bulk array over modules is
dense over the rows known when it was written (a shorter array means zeros for the rows that came later).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

MAGIC = "distprof"

#: (major, minor).  A reader refuses a newer major, and reads a newer minor by passing over fields and kinds it does not know.
SCHEMA_VERSION = (1, 0)
SCHEMA_HISTORY = {
    (
        1,
        0,
    ): "first version: header, plan, topology, tree, parameters, counts, step, expert_layers, expert_load, error, end",
}

#: Phases of one iteration, in the order in which they are shown.  They add up to the iteration.
PHASES = ("data", "forward", "backward", "optimizer", "evaluation", "other")

#: Axes of parallelism, in the order in which they are shown.  ``mp`` is derived: tp x pp.
AXES = ("dp", "tp", "pp", "cp", "ep")

TRAINING = "training"  # an iteration that an optimizer step closes
FORWARD = "forward"  # no optimizer has stepped: one iteration a root forward

Array = npt.NDArray[Any]


def bulk(dtype: str) -> Any:
    """A field that travels as the little-endian bytes of a one-dimensional array."""
    return field(default_factory=lambda: np.zeros(0, dtype), metadata={"dtype": dtype}, compare=False)


@dataclass(frozen=True)
class Header:
    """Record 0 of every shard: who wrote it, where, and on which clocks."""

    KIND: ClassVar[str] = "header"
    run_id: str
    rank: int
    world_size: int
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    generation: int = 0
    host: str = ""
    pid: int = 0
    script: str = ""
    device: str = "cpu"  # torch's device type
    device_name: str = ""
    writer: str = ""  # distprof's version
    python: str = ""
    torch: str = ""
    wall_ns: int = 0  # the anchor: one instant on both clocks
    mono_ns: int = 0
    magic: str = MAGIC
    schema: tuple[int, ...] = SCHEMA_VERSION


@dataclass(frozen=True)
class Plan:
    """What this rank set out to record; a rank is *complete* when it recorded all of it."""

    KIND: ClassVar[str] = "plan"
    warmup: int
    counted: int
    timed: int


@dataclass(frozen=True)
class Mesh:
    """A DeviceMesh as it was seen: its dimension names, its shape, and this rank's coordinate in it (empty: not in it)."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    coordinate: tuple[int, ...] = ()


@dataclass(frozen=True)
class Topology:
    """Sizes of the parallel axes and this rank's coordinates on them.  The last one of a shard holds.

    ``sizes`` and ``coordinates`` have the same keys, from :data:`AXES` and ``mp``.
    ``source``: ``declared`` (the script said so), ``device_mesh`` (dimension names) or ``assumed`` (pure data parallel).
    """

    KIND: ClassVar[str] = "topology"
    source: str
    sizes: dict[str, int]
    coordinates: dict[str, int]
    meshes: tuple[Mesh, ...] = ()
    notes: tuple[str, ...] = ()  # sentences for the report, such as two sources that disagree


@dataclass(frozen=True)
class ModuleRow:
    """One module of the tree.

    ``name`` is the model's own (wrappers such as DDP's ``module.`` stripped), empty for a root; ``root`` numbers the models
    found running.  ``own_params`` / ``total_params`` count a rank's parameters with data-parallel sharding undone, each
    parameter once within a subtree.  ``wrapper`` marks a module that only wraps the one below it (DDP, torch.compile).
    """

    name: str
    class_name: str
    root: int
    parent: int  # row of the parent, -1 for a root
    depth: int  # 0 for a root
    extra_repr: str = ""
    own_params: int = 0
    total_params: int = 0
    wrapper: bool = False


@dataclass(frozen=True)
class Tree:
    """Rows of the module tree, numbered from ``first_row`` on.  A model met later appends another record."""

    KIND: ClassVar[str] = "tree"
    first_row: int
    rows: tuple[ModuleRow, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of one model, in three sizes.

    ``local_numel`` lies in this rank's memory; ``rank_numel`` is this rank's with data-parallel sharding (FSDP) undone, the
    base of "params per GPU"; ``global_numel`` is the whole of the piece named by ``name`` and by this rank's coordinates on
    the axes in ``split`` (axes on which ranks hold *different* parameters under one name: experts on ``ep``).
    ``tied_to`` is the name of the parameter of which this is the same object, or empty.
    """

    name: str
    row: int
    root: int
    local_numel: int
    rank_numel: int
    global_numel: int
    dtype: str
    itemsize: int
    trainable: bool = True
    split: tuple[str, ...] = ()
    tied_to: str = ""


@dataclass(frozen=True)
class Parameters:
    """All parameters of one root."""

    KIND: ClassVar[str] = "parameters"
    root: int
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Counts:
    """One counted step: *exclusive* forward work per row, summed over the iteration's micro-batches.

    ``uncounted`` holds the ops that ran without a formula, by name, with their calls.
    """

    KIND: ClassVar[str] = "counts"
    iteration: int
    mode: str
    micro_batches: int
    samples: int
    calls: Array = bulk("<u4")
    forward_macs: Array = bulk("<i8")
    forward_flops: Array = bulk("<i8")
    uncounted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One timed step.  Module times are *self* times (without children), summed over the iteration's micro-batches.

    ``phases_ns`` has keys from :data:`PHASES` and adds up to ``duration_ns``; a phase that could not be seen (``data``
    without a torch DataLoader) is absent..
    """

    KIND: ClassVar[str] = "step"
    iteration: int
    mode: str
    start_wall_ns: int
    duration_ns: int
    phases_ns: dict[str, int]
    micro_batches: int
    batch_size: int  # dimension 0 of the first tensor of one micro-batch, 0 when there was none
    samples: int
    peak_memory_bytes: int
    memory_source: str  # "allocator" (CUDA) or "rss"
    calls: Array = bulk("<u4")
    forward_ns: Array = bulk("<i8")
    backward_ns: Array = bulk("<i8")


@dataclass(frozen=True)
class ExpertLayer:
    """One MoE layer: the module that holds the experts, how many there are in the model, and which of them this rank hosts."""

    name: str
    row: int
    num_experts: int
    local_experts: tuple[int, ...]  # global ids, in the order of the loads


@dataclass(frozen=True)
class ExpertLayers:
    """The MoE layers that this rank found.  The last one of a shard holds."""

    KIND: ClassVar[str] = "expert_layers"
    layers: tuple[ExpertLayer, ...]


@dataclass(frozen=True)
class ExpertLoad:
    """Tokens that each local expert processed in one timed step: all layers one after the other, in the order of
    :class:`ExpertLayers` and of their ``local_experts``."""

    KIND: ClassVar[str] = "expert_load"
    iteration: int
    tokens: Array = bulk("<i8")


@dataclass(frozen=True)
class Error:
    """The recorder failed, said so once, and detached; what was written before it still holds."""

    KIND: ClassVar[str] = "error"
    where: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class End:
    """The rank wrote all it had to: ``reason`` is ``window complete``, ``exit`` or ``no module was called``."""

    KIND: ClassVar[str] = "end"
    reason: str
    iterations: int  # that the rank ran, recorded or not, when this was written


Record = Header | Plan | Topology | Tree | Parameters | Counts | Step | ExpertLayers | ExpertLoad | Error | End

RECORDS: dict[str, type[Record]] = {
    record.KIND: record
    for record in (Header, Plan, Topology, Tree, Parameters, Counts, Step, ExpertLayers, ExpertLoad, Error, End)
}
