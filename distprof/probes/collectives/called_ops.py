"""Notes the op of the last collective of each group, where Python code calls it: a watcher shows it while it runs.

Most collectives of a script, FSDP, DeepSpeed and Megatron call a method of ProcessGroup, which is patched during the
window.  Those of C++ code are not seen: DDP's reducer, and the functional collectives of DTensor.  Torch's flight
recorder has their ops, but only a dump of its whole ring tells them, which would take too long in a beat.

DDP's reducer does nothing but all_reduce once its buckets are built.  So a collective of its group that no Python code
called is one of these, as far as no DeviceMesh is there, whose collectives C++ code may start, too.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from distprof.hooks.patches import CallPatch, OnError
from distprof.probes.collectives.messages import c10d_type
from distprof.topology.imported import imported
from distprof.topology.process_groups import reached

#: The methods, and the names that reports have for their ops.
OPS: Mapping[str, str] = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather",
    "allgather_into_tensor_coalesced": "all_gather",
    "all_gather_single": "all_gather",
    "all_gather_single_coalesced": "all_gather",
    "_allgather_base": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "reduce_scatter_single": "reduce_scatter",
    "reduce_scatter_single_coalesced": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter",
    "gather": "gather",
    "scatter": "scatter",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all",
    "all_to_all_single": "all_to_all",
    "barrier": "barrier",
}
#: The function of torch.distributed by which DDP broadcasts buffers before a forward.
_BUFFERS = "_broadcast_coalesced"


class CalledOp(NamedTuple):
    """The op of collective ``number`` of a group, empty where it is not known; ``turn`` grows from call to call of this
    process.
    """

    turn: int
    number: int
    op: str


class KnownOps(NamedTuple):
    """What is known of ops now: the last call by the name of its group, and the names of groups of which all other
    collectives are an all_reduce of DDP's.
    """

    called: Mapping[str, CalledOp] = {}
    reduced: Collection[str] = ()

    def of(self, name: str, number: int) -> CalledOp | None:
        """Returns the op of the collective ``number``, or of a later one, of a group; None where it is not known."""
        call = self.called.get(name)
        if call is not None and call.number >= number:
            return call
        return CalledOp(0, number, "all_reduce") if name in self.reduced else None


class CalledOps:
    """Sees the collectives of one window; another thread may ask for :meth:`known` at any time."""

    def __init__(self, on_error: OnError, reducing: Sequence[Any] = ()) -> None:
        """``reducing`` are the groups that DDP's reducers use."""
        self._last: dict[str, CalledOp] = {}  # by the name of the group
        self._reducing = reducing
        self._reduced: set[str] = set()  # names of the groups of which what is not noted is the reducer's
        self._held: set[str] = set()
        self._turn = 0
        group, distributed = c10d_type("ProcessGroup"), sys.modules.get("torch.distributed")
        self._patches: list[tuple[CallPatch, _Calls]] = [
            (CallPatch(((group, method),), "a collective", on_error), _Calls(self, op))
            for method, op in OPS.items()
            if hasattr(group, method)
        ]
        if hasattr(distributed, _BUFFERS):
            patch = CallPatch(((distributed, _BUFFERS),), "a collective", on_error)
            self._patches.append((patch, _Broadcasts(self, "broadcast")))
        else:  # they would be taken for the reducer's
            self._reducing = ()

    def known(self) -> KnownOps:
        """Returns what is known now."""
        return KnownOps(dict(self._last), self._reduced - self._held)

    def open(self) -> None:
        world = imported("torch.distributed.distributed_c10d", "_world")
        if world is None or not world.pg_map:
            return
        for patch, handler in self._patches:
            patch.open(handler)
        self._reduced = {name for group in self._reducing if (name := _name_of(group)) is not None}

    def close(self) -> None:
        for patch, _ in self._patches:
            patch.close()

    def add(self, group: Any, number: int, op: str) -> None:
        name = _name_of(group)
        if name is not None:
            self._turn += 1
            self._last[name] = CalledOp(self._turn, number, op)

    def hold(self, group: Any) -> None:
        """Notes that DDP calls other collectives of a group than those of its reducer, until :meth:`go_on`."""
        self._held.update(filter(None, [_name_of(group)]))

    def go_on(self, group: Any) -> None:
        self._held.discard(_name_of(group) or "")


def _name_of(group: Any) -> str | None:
    world = imported("torch.distributed.distributed_c10d", "_world")
    name = world.pg_names.get(group) if world is not None else None
    return None if name is None else str(name)


class _Calls:
    """Handles the calls of one method.  The op is noted if the call has enqueued exactly one collective.

    Gloo makes two of a ``reduce_scatter``, a coalesced call makes none, and another thread may use the group too.
    """

    def __init__(self, ops: CalledOps, op: str) -> None:
        self._ops = ops
        self._op = op

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, int] | None:
        before = reached(args[0]) if args else None
        return None if before is None else (args[0], before)

    def end(self, token: tuple[Any, int], result: Any, raised: bool) -> None:
        group, before = token
        after = reached(group)
        if after is not None and after > before:
            self._ops.add(group, after, self._op if after == before + 1 and not raised else "")


class _Broadcasts(_Calls):
    """Handles DDP's broadcasts of buffers, one call for several of them: they are not its reducer's meanwhile."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, int] | None:
        group = args[0] if args else kwargs.get("process_group")
        before = reached(group)
        if before is None:
            return None
        self._ops.hold(group)
        return group, before

    def end(self, token: tuple[Any, int], result: Any, raised: bool) -> None:
        group, before = token
        after = reached(group)
        if after is not None and after > before:
            self._ops.add(group, after, "" if raised else self._op)
        self._ops.go_on(group)
