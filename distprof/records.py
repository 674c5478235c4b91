"""Every record that a rank writes, as plain frozen dataclasses.

The names of the fields are the keys of the record in the shard; ``docs/FORMAT.md`` describes them for readers in other
languages and a test holds that page against this file.  Units are suffixes: ``_ns``, ``_bytes``, ``_macs``, ``_flops``.
Bulk numbers are one-dimensional numpy arrays, little-endian in the file, with the dtype given here by :func:`bulk`.

A *row* is the index of a module in the tree: :class:`Tree` records append rows, and every bulk array over modules is
dense over the rows known when it was written (a shorter array means zeros for the rows that came later).

The ranges of the int fields are part of their types: a reader may size its tables by what lies within them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt

MAGIC = "distprof"

#: (major, minor).  A reader refuses a newer major, and passes over what it does not know of a newer minor.
SCHEMA_VERSION = (1, 1)
SCHEMA_HISTORY: dict[tuple[int, int], str] = {
    (1, 0): "header, plan, topology, tree, parameters, counts, step, expert_layers, expert_load, error, end",
    (1, 1): "topology: sources, groups, stages, finer axes; parameters: sharded, kind, shared_as; expert_layers: axis, "
    "top_k, counted; expert_load: unseen; expert_routing; counts: device_work, compiled, eager_refused, generated; "
    "ops; memory",
}

#: Phases of one iteration, in the order in which they are shown.  They add up to the iteration.
PHASES = ("data", "forward", "backward", "optimizer", "evaluation", "other")

#: Axes of parallelism, in the order in which they are shown.  ``mp`` is derived: tp x pp.
AXES = ("dp", "tp", "pp", "cp", "ep")

#: What a parameter is, for sums by kind.  ``shared``: of an expert that sees every token.
DENSE, EXPERT, SHARED, ROUTER, EMBEDDING = "dense", "expert", "shared", "router", "embedding"
KINDS = (DENSE, EXPERT, SHARED, ROUTER, EMBEDDING)

TRAINING = "training"  # an iteration that an optimizer step closes
FORWARD = "forward"  # no optimizer has stepped: one iteration a root forward

#: What makes a process the rank that it says it is.
ALONE = "alone"  # nobody said that there are others
OTHER_GROUP = "other group"  # a process group that contradicts the environment
ENVIRONMENT = "environment"  # its launcher's variables
GROUP = "group"  # the process group that it has joined
CLAIMS = (ALONE, OTHER_GROUP, ENVIRONMENT, GROUP)  # the stronger, the later

#: Why a rank's recording ends that never called a model.
NO_MODULE = "no module was called"


@dataclass(frozen=True)
class Bounds:
    """The range of an int field, both ends included.  A reader refuses a record with an int that lies outside."""

    low: int
    high: int


#: No job has more ranks, modules or experts; whatever a reader may size a table by is bounded by it.
LIMIT = 1 << 20
#: No module lies deeper in its tree.
MAX_DEPTH = 256

INT64 = Bounds(-(1 << 63), (1 << 63) - 1)  # of an int without bounds of its own
Natural = Annotated[int, Bounds(0, INT64.high)]  # times, bytes, amounts
Index = Annotated[int, Bounds(0, LIMIT - 1)]  # which one of something: a rank, a coordinate, an expert
Size = Annotated[int, Bounds(1, LIMIT)]  # how many there are of something that an Index tells apart
Row = Annotated[int, Bounds(-1, LIMIT - 1)]  # a module of the tree, -1 for none

Array = npt.NDArray[Any]
# ruff: noqa: RUF009  (bulk() is a field(), which ruff cannot know)


def bulk(dtype: str) -> Any:
    """A field that travels as the little-endian bytes of a one-dimensional array."""
    return field(default_factory=lambda: np.zeros(0, dtype), metadata={"dtype": dtype})


class _Bulky:
    """Equality of records that hold arrays: dataclass's own would ask an array for its truth."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


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
    """What this rank set out to record; a rank is *complete* when it recorded all of it."""

    KIND: ClassVar[str] = "plan"
    warmup: Natural
    counted: Natural
    timed: Natural


@dataclass(frozen=True)
class Mesh:
    """A DeviceMesh as it was seen: dimension names, shape, and this rank's coordinate in it (empty: not in it)."""

    names: tuple[str, ...]
    shape: tuple[Size, ...]
    coordinate: tuple[Index, ...] = ()


@dataclass(frozen=True)
class Group:
    """A process group that this rank is in: torch's name for it, what its maker called it, and its ranks in the order
    of the group (none: the whole world)."""

    name: str
    description: str = ""
    ranks: tuple[Index, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A model of this rank that is one stage of a pipeline; a rank may hold several (virtual stages)."""

    root: Index
    index: Index  # among all stages of the pipeline
    count: Size  # of all stages


@dataclass(frozen=True)
class Topology:
    """Sizes of the parallel axes and this rank's coordinates on them.  The last one of a shard holds.

    ``sizes`` and ``coordinates`` have the same keys: :data:`AXES` and ``mp``, and where they are known the parts of dp
    (``dp_replicate``, ``dp_shard``), ``sp`` (sequence parallel over ranks of its own), ``etp`` and ``edp`` (tensor and
    data parallel of experts), and ``ep_size_N`` for each N where experts are of several ep sizes (then ``ep`` is
    the largest).  ``sources`` says of each axis who told it, ``source`` who told most: ``declared`` (by the script), a
    framework, ``device_mesh`` (names of dimensions), ``process_groups`` (descriptions) or ``assumed``.
    """

    KIND: ClassVar[str] = "topology"
    source: str
    sizes: dict[str, Size]
    coordinates: dict[str, Index]
    meshes: tuple[Mesh, ...] = ()
    notes: tuple[str, ...] = ()  # sentences for the report, such as two sources that disagree
    sources: dict[str, str] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class ModuleRow:
    """One module of the tree.

    ``name`` is the model's own (wrappers such as DDP's ``module.`` stripped), empty for a root; ``root`` numbers the
    models found running.  ``own_params`` / ``total_params`` count a rank's parameters with data-parallel sharding
    undone, each parameter once within a subtree.  ``wrapper``: it only wraps the module below (DDP, torch.compile).
    """

    name: str
    class_name: str
    root: Index
    parent: Row  # row of the parent, -1 for a root
    depth: Index  # 0 for a root
    extra_repr: str = ""
    own_params: Natural = 0
    total_params: Natural = 0
    wrapper: bool = False


@dataclass(frozen=True)
class Tree:
    """Rows of the module tree, numbered from ``first_row`` on.  A model met later appends another record."""

    KIND: ClassVar[str] = "tree"
    first_row: Index
    rows: tuple[ModuleRow, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of one model, in three sizes.

    ``local_numel`` lies in this rank's memory; ``rank_numel`` is this rank's with data-parallel sharding (FSDP) undone,
    the base of "params per GPU"; ``global_numel`` is the whole of the piece named by ``name`` and by this rank's
    coordinates on the axes in ``split`` (on which ranks hold *different* parameters under one name: experts on ``ep``).
    ``tied_to`` is the name of the parameter of which this is the same object, or empty.

    Its layout: ranks along the axes in ``sharded`` hold pieces of it (``dp`` for FSDP and ZeRO-3), along those in
    ``split`` different parameters, along all others the same.  Ranks of other pipeline stages hold different
    parameters under one name, unless both say the same ``shared_as``: copies of one that are kept alike.
    """

    name: str
    row: Row
    root: Index
    local_numel: Natural
    rank_numel: Natural
    global_numel: Natural
    dtype: str
    itemsize: Natural
    trainable: bool = True
    split: tuple[str, ...] = ()
    tied_to: str = ""
    sharded: tuple[str, ...] = ()
    kind: str = DENSE
    shared_as: str = ""


@dataclass(frozen=True)
class Parameters:
    """All parameters of one root.  The last one of a root holds."""

    KIND: ClassVar[str] = "parameters"
    root: Index
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class DeviceWork:
    """Multiply-accumulates that ran on one device in one arithmetic: what MFU and HFU are made of.

    ``arithmetic``: ``fp64``, ``fp32``, ``tf32``, ``bf16``, ``fp16``, ``fp8``, else torch's name of the operands' type;
    empty where no operand was seen, and then ``device`` is, too.  ``model_macs``: without recompute, and without what a
    fused kernel works out anew in its backward.
    """

    device: str  # torch's: cuda:0, cpu
    name: str  # what the device calls itself
    threads: Natural  # torch's, on the CPU; else 0
    arithmetic: str
    model_macs: Natural
    executed_macs: Natural


@dataclass(frozen=True)
class Generated:
    """A kernel that the compiler made itself, of the compiled region of one module (-1: of none), and its calls."""

    row: Row
    name: str
    calls: Natural


@dataclass(frozen=True, eq=False)
class Counts(_Bulky):
    """One counted step: *exclusive* work per row, summed over the iteration's micro-batches.

    Forward is what ran in root forwards; backward, what autograd ran, credited to the module whose forward made the
    node; recompute, what checkpointing ran again.  Flops are all of them, 2 a MAC included.  ``outside`` has the work
    that belongs to no row, under the names of the six arrays, 0 where absent, and that of optimizers' steps, under
    ``optimizer_macs`` and ``optimizer_flops``.  ``uncounted`` holds the ops that ran without a formula, by name, with
    their calls.  ``device_work`` is of the whole step, work of no row included.

    ``compiled`` tells how code of torch.compile ran: ``compiled``, as it always does, its region counted whole, or
    ``eager``, counted module by module; empty where there was none.  ``eager_refused``: why it was not eager, though
    that was asked for.
    """

    KIND: ClassVar[str] = "counts"
    iteration: Natural
    mode: str
    micro_batches: Natural
    samples: Natural
    calls: Array = bulk("<u4")
    forward_macs: Array = bulk("<i8")
    forward_flops: Array = bulk("<i8")
    backward_macs: Array = bulk("<i8")
    backward_flops: Array = bulk("<i8")
    recompute_macs: Array = bulk("<i8")
    recompute_flops: Array = bulk("<i8")
    outside: dict[str, Natural] = field(default_factory=dict)
    uncounted: dict[str, Natural] = field(default_factory=dict)
    device_work: tuple[DeviceWork, ...] = ()
    compiled: str = ""
    eager_refused: str = ""
    generated: tuple[Generated, ...] = ()  # kernels that ran and are not counted


@dataclass(frozen=True)
class OpRow:
    """One op in one kind of work: what all its calls cost together."""

    name: str  # aten.addmm
    kind: str  # forward, backward, recompute, or another kind that work may be of
    calls: Natural
    macs: Natural
    flops: Natural
    time_ns: Natural = 0


@dataclass(frozen=True)
class Ops:
    """The ops of one counted step, where a process profiles itself alone.

    Times, if ``timed``, are of the counted step: longer than a plain one's.
    """

    KIND: ClassVar[str] = "ops"
    iteration: Natural = 0
    mode: str = FORWARD
    ops: tuple[OpRow, ...] = ()
    timed: bool = False  # not where nothing ran: on the meta device, with fake tensors


@dataclass(frozen=True, eq=False)
class Step(_Bulky):
    """One timed step.  Module times are *self* times (without children), summed over the iteration's micro-batches.

    ``phases_ns`` has keys from :data:`PHASES` and adds up to ``duration_ns``; a phase that could not be seen (``data``
    without a torch DataLoader) is absent.
    """

    KIND: ClassVar[str] = "step"
    iteration: Natural
    mode: str
    start_wall_ns: Natural
    duration_ns: Natural
    phases_ns: dict[str, int]
    micro_batches: Natural
    batch_size: Natural  # dimension 0 of the first tensor of one micro-batch, 0 when there was none
    samples: Natural
    peak_memory_bytes: Natural
    memory_source: str  # "allocator" (CUDA) or "rss"
    calls: Array = bulk("<u4")
    forward_ns: Array = bulk("<i8")
    backward_ns: Array = bulk("<i8")


@dataclass(frozen=True)
class Memory:
    """What training holds in this rank's memory when an iteration has ended and nothing has been cleared yet.

    Local bytes: this rank's shards.  ``optimizer_bytes`` has the state, and the copies of parameters that some
    optimizers step in.
    """

    KIND: ClassVar[str] = "memory"
    iteration: Natural
    parameter_bytes: Natural
    gradient_bytes: Natural
    optimizer_bytes: Natural


@dataclass(frozen=True)
class ExpertLayer:
    """One MoE layer: the module that holds the experts, how many the model has, and which of them this rank hosts."""

    name: str
    row: Row
    num_experts: Size
    local_experts: tuple[Index, ...]  # global ids, in the order of the loads
    axis: str = "ep"  # over which its experts are shared out
    top_k: Natural = 0  # experts that see a token; 0: not known
    counted: bool = True  # whether expert_load records tell its tokens


@dataclass(frozen=True)
class ExpertLayers:
    """The MoE layers that this rank found.  The last one of a shard holds."""

    KIND: ClassVar[str] = "expert_layers"
    layers: tuple[ExpertLayer, ...]


@dataclass(frozen=True, eq=False)
class ExpertLoad(_Bulky):
    """Tokens that each local expert processed in one timed step: all layers one after the other, in the order of
    :class:`ExpertLayers`, those that are ``counted``, and of their ``local_experts``.

    ``unseen``: the numbers of the layers, by that order, of which nothing was seen in this step (they were not called,
    or inside compiled code): their zeros say nothing.
    """

    KIND: ClassVar[str] = "expert_load"
    iteration: Natural
    tokens: Array = bulk("<i8")
    unseen: tuple[Index, ...] = ()


@dataclass(frozen=True, eq=False)
class ExpertRouting(_Bulky):
    """Where routers sent this rank's own tokens in one timed step, before any of them was dropped.

    ``layers``: the numbers, by the order of :class:`ExpertLayers`, of those whose routing was seen.  ``routed``: one
    layer after the other, how often each of its ``num_experts`` was chosen.  Of those of them in ``drops_known`` it was
    also seen what became of the choices: ``dropped`` has as many numbers as ``routed``, or none where all were kept.
    ``aux_loss``: for each of ``layers`` the sum over its ``aux_calls`` (calls of a router that had one), or empty.
    """

    KIND: ClassVar[str] = "expert_routing"
    iteration: Natural
    layers: tuple[Index, ...]
    routed: Array = bulk("<u4")
    drops_known: tuple[Index, ...] = ()
    dropped: Array = bulk("<u4")
    aux_loss: Array = bulk("<f8")
    aux_calls: Array = bulk("<u4")


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
    iterations: Natural  # that the rank ran, recorded or not, when this was written


Record = (
    Header
    | Plan
    | Topology
    | Tree
    | Parameters
    | Counts
    | Ops
    | Step
    | Memory
    | ExpertLayers
    | ExpertLoad
    | ExpertRouting
    | Error
    | End
)

RECORDS: dict[str, type[Record]] = {record.KIND: record for record in get_args(Record)}
