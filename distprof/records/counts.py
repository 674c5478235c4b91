"""The work of one counted step."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Amount, Array, Bulky, Natural, Row, bulk
from distprof.records.steps import FORWARD

#: A multiply-accumulate is a multiplication and an addition.
FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class DeviceWork:
    """Multiply-accumulates that ran on one device in one number format: MFU and HFU are computed from them.

    ``arithmetic``: ``fp64``, ``fp32``, ``tf32``, ``bf16``, ``fp16``, ``fp8``, else torch's name of the operands' type;
    it and ``device`` are empty where no operand was seen.  ``model_macs``: without recomputation, also that of a fused
    kernel in its backward.
    """

    device: str  # torch's name: cuda:0, cpu
    name: str  # the name that the driver gives
    threads: Natural  # torch's number of threads on the CPU; else 0
    arithmetic: str
    model_macs: Amount
    executed_macs: Amount


@dataclass(frozen=True)
class Generated:
    """A kernel that the compiler generated for the compiled region of one module (-1: of no module), and its calls.

    ``optimizer``: it belongs to a compiled optimizer step.
    """

    row: Row
    name: str
    calls: Natural
    optimizer: bool = False


@dataclass(frozen=True, eq=False)
class Counts(Bulky):
    """One counted step: *exclusive* work per row, summed over the iteration's micro-batches.

    Forward is the work of root forwards.  Backward is the work of autograd, credited to the module whose forward or
    backward made the node.  Recompute is the work that checkpointing repeats.  Flops include 2 for each MAC.

    ``outside`` has the work that belongs to no row, under the names of the six arrays, 0 where absent: the script's own
    work between models, backward and optimizers.  Its ``optimizer_macs`` and ``optimizer_flops`` have the optimizers'
    steps, the work without gradient between a backward and them, and also work in grad mode after the last backward.
    ``uncounted`` has the number of calls of each op without a formula, and ``uncounted_work`` the order of magnitude of
    its work, for sorting.  ``device_work`` is the work of the whole step, with the work of no row.

    ``compiled`` says how code of torch.compile ran: ``compiled``, its region counted as a whole, or ``eager``, counted
    module by module; empty where there was none.  ``eager_refused``: why it did not run in eager form, although the
    user asked for it.
    """

    KIND: ClassVar[str] = "counts"
    iteration: Natural
    mode: str
    micro_batches: Natural
    samples: Natural
    calls: Array = bulk("<u4")
    forward_macs: Array = bulk("<i8", amounts=True)
    forward_flops: Array = bulk("<i8", amounts=True)
    backward_macs: Array = bulk("<i8", amounts=True)
    backward_flops: Array = bulk("<i8", amounts=True)
    recompute_macs: Array = bulk("<i8", amounts=True)
    recompute_flops: Array = bulk("<i8", amounts=True)
    outside: dict[str, Amount] = field(default_factory=dict)
    uncounted: dict[str, Natural] = field(default_factory=dict)
    device_work: tuple[DeviceWork, ...] = ()
    compiled: str = ""
    eager_refused: str = ""
    generated: tuple[Generated, ...] = ()  # kernels that ran and are not counted
    uncounted_work: dict[str, Amount] = field(default_factory=dict)
    batch_size: Natural = 0
    batch_found: str = ""
    window: Natural = 0


@dataclass(frozen=True)
class OpRow:
    """One op in one kind of work: the sum over all its calls."""

    name: str  # aten.addmm
    kind: str  # forward, backward, recompute, or another kind of work
    calls: Natural
    macs: Amount
    flops: Amount
    time_ns: Natural = 0


@dataclass(frozen=True)
class Ops:
    """The ops of one counted step, where a process profiles itself without a job.

    Times, if ``timed``, are those of the counted step: longer than in a plain step.
    """

    KIND: ClassVar[str] = "ops"
    iteration: Natural = 0
    mode: str = FORWARD
    ops: tuple[OpRow, ...] = ()
    timed: bool = False  # False where nothing was computed: on the meta device, with fake tensors
    window: Natural = 0
