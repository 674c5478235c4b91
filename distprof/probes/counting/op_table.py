"""A table of the ops of a counted step: calls, MACs, flops and time of each.

It is used only when one process profiles itself: timing every op slows a step more than a recorded job may be slowed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from distprof.flops.attribution import FORWARD, Attribution, Owner
from distprof.flops.counter import FlopMode
from distprof.flops.formulas.rule import Formula
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.probes.timing.timeline import Timestamp, Timestamps
from distprof.records import OpRow
from distprof.tensors.nested_tensors import op_tensors


class _Op(NamedTuple):
    kind: str  # of attribution.Owner
    name: str


@dataclass
class _Work:
    calls: int = 0
    macs: int = 0
    flops: int = 0


@dataclass
class OpTable:
    """The ops of one profile.  ``nothing_ran`` is set for meta or fake tensors, whose times mean nothing."""

    source: Timestamps
    work: dict[_Op, _Work] = field(default_factory=dict)
    nothing_ran: bool = False
    _ran: list[tuple[_Op, Timestamp, Timestamp]] = field(default_factory=list)  # before and after

    def ran(self, op: _Op, before: Timestamp, after: Timestamp) -> None:
        self.work.setdefault(op, _Work()).calls += 1
        self._ran.append((op, before, after))

    def rows(self) -> tuple[OpRow, ...]:
        """Returns the rows of the table; waits until all times can be read."""
        times = {} if self.nothing_ran else self._times_ns()
        return tuple(
            OpRow(op.name, op.kind, work.calls, work.macs, work.flops, times.get(op, 0))
            for op, work in sorted(self.work.items())
        )

    def _times_ns(self) -> dict[_Op, int]:
        times: dict[_Op, int] = {}
        if self._ran:
            self.source.wait(self._ran[-1][-1])
        for op, before, after in self._ran:
            times[op] = times.get(op, 0) + self.source.length_ns(after, before)
        return times


class TableMode(FlopMode):
    """Fills a table; skips the ops of modules at ``ignored`` rows, and counts the job's own fake tensors.

    The job's own fake tensors belong to the FakeTensorMode around its forward, or to that of its parameters
    (``fakes``): DTensor creates others, in its own mode, to infer shapes.
    """

    def __init__(
        self, attribution: Attribution, table: OpTable, ignored: Collection[int], fakes: Collection[FakeTensorMode]
    ) -> None:
        super().__init__(attribution)
        self._table = table
        self._ignored = ignored
        self._fakes = set(map(id, fakes))
        self._op = _Op(FORWARD, "")
        self._is_ignored = False

    @hidden_from_dynamo
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._dispatch(func, types, args, kwargs or {})

    def __enter__(self) -> Any:
        modes = _get_current_dispatch_mode_stack()
        self._fakes |= {id(mode) for mode in modes if isinstance(mode, FakeTensorMode)}
        return super().__enter__()

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._try(self._set_op, func)
        before = self._table.source.now()
        result = super()._run(func, args, kwargs)
        after = self._table.source.now()
        if not self._is_ignored and not _is_read_only(func):
            self._table.ran(self._op, before, after)
        if any(tensor.is_meta for tensor in op_tensors((result,))) and _computes_on_meta(func, args):
            self._table.nothing_ran = True
        return result

    def _is_of_job(self, args: Any, kwargs: Any) -> bool:
        fakes = (tensor for tensor in op_tensors((*args, *kwargs.values())) if isinstance(tensor, FakeTensor))
        is_of_job = any(id(fake.fake_mode) in self._fakes for fake in fakes)
        self._table.nothing_ran |= is_of_job
        return is_of_job

    def _set_op(self, func: Any) -> None:
        owner = self._attribution.owner()
        self._is_ignored = owner.row in self._ignored
        self._op = _Op(owner.kind, str(func).rpartition(".")[0] or str(func))

    def _count(self, func: Any, counted: Formula | None, args: Any, kwargs: Any, result: Any) -> None:
        if not self._is_ignored:
            super()._count(func, counted, args, kwargs, result)

    def _credit(self, owner: Owner, macs: int, flops: int) -> None:
        super()._credit(owner, macs, flops)
        work = self._table.work[self._op]
        work.macs += macs
        work.flops += flops


def _computes_on_meta(func: Any, args: Any) -> bool:
    """Returns whether the op computes on meta tensors, and does not only move or view them, as offloading does."""
    return not _is_read_only(func) and any(tensor.is_meta for tensor in op_tensors(args))


def _is_read_only(func: Any) -> bool:
    """Returns whether the op only reads a tensor: a view, or a query (prim) of its properties."""
    return getattr(func, "is_view", False) or getattr(func, "namespace", "") == "prim"
