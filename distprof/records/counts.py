"""The work of one counted step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from distprof.records.fields import Amount, Array, Bulky, Natural, Row, bulk
from distprof.records.steps import FORWARD


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
    model_macs: Amount
    executed_macs: Amount


@dataclass(frozen=True)
class Generated:
    """A kernel that the compiler made itself, of the compiled region of one module (-1: of none), and its calls;
    ``optimizer``: it is of a compiled optimizer step.
    """

    row: Row
    name: str
    calls: Natural
    optimizer: bool = False


@dataclass(frozen=True, eq=False)
class Counts(Bulky):
    """One counted step: *exclusive* work per row, summed over the iteration's micro-batches.

    Forward is what ran in root forwards; backward, what autograd ran, credited to the module whose forward, or whose
    backward, made the node; recompute, what checkpointing ran again.  Flops are all of them, 2 a MAC included.
    ``outside`` has the work that belongs to no row, under the names of the six arrays, 0 where absent: what the script
    computes itself between its models, backward and optimizers.  It has that of optimizers' steps, and what runs
    without gradient from a backward up to them, in grad mode too behind the last backward, under ``optimizer_macs`` and
    ``optimizer_flops``.  ``uncounted`` holds the ops that ran without a formula, by name, with their calls, and
    ``uncounted_work`` under the same names an order of magnitude of their work, by which they may be put in order.
    ``device_work`` is of the whole step, work of no row included.

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


@dataclass(frozen=True)
class OpRow:
    """One op in one kind of work: what all its calls cost together."""

    name: str  # aten.addmm
    kind: str  # forward, backward, recompute, or another kind that work may be of
    calls: Natural
    macs: Amount
    flops: Amount
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
