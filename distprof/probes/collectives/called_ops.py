"""Notes the op of the last collective of each group, where Python code calls it: a watcher shows it while it runs.

Most collectives of a script, FSDP, DeepSpeed and Megatron call a method of ProcessGroup, which is patched during the
window.  Those of C++ code are not seen: DDP's reducer, and the functional collectives of DTensor.  Torch's flight
recorder has their ops, but only a dump of its whole ring tells them, which would take too long in a beat.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class CalledOp(NamedTuple):
    """The op of collective ``number`` of a group; ``turn`` grows from call to call of this process."""

    turn: int
    number: int
    op: str


class CalledOps:
    """Sees the collectives of one window; another thread may read :attr:`last` at any time."""

    def __init__(self, on_error: OnError) -> None:
        self.last: dict[str, CalledOp] = {}  # by the name of the group
        self._turn = 0
        group = c10d_type("ProcessGroup")
        self._patches = [
            (CallPatch(((group, method),), "a collective", on_error), _Calls(self, op))
            for method, op in OPS.items()
            if hasattr(group, method)
        ]

    def open(self) -> None:
        world = imported("torch.distributed.distributed_c10d", "_world")
        if world is None or not world.pg_map:
            return
        for patch, handler in self._patches:
            patch.open(handler)

    def close(self) -> None:
        for patch, _ in self._patches:
            patch.close()

    def add(self, group: Any, number: int, op: str) -> None:
        world = imported("torch.distributed.distributed_c10d", "_world")
        name = world.pg_names.get(group) if world is not None else None
        if name is not None:
            self._turn += 1
            self.last[str(name)] = CalledOp(self._turn, number, op)


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
        if not raised and reached(group) == before + 1:
            self._ops.add(group, before + 1, self._op)
