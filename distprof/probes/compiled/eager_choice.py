"""Decides whether compiled code runs in eager form for a step: if asked for, and if every rank has the memory.

Eager form keeps tensors that the compiler would have fused away: attention in separate ops took 2.4 x the compiled
peak.  So a rank needs free memory of twice what an iteration takes on top of what stays (parameters, optimizer).  Each
rank publishes its result before the last unwatched iteration; at the counted one, the first rank to arrive decides for
all, so that all do the same and none waits for another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist

#: Free memory needed, as a multiple of what an iteration takes on top of what stays.
_FACTOR = 2.0
_FITS, _SHORT, _DECIDED = (f"distprof/count_eager/{key}" for key in ("fits", "short", "decided"))
_GO = "go"


def memory_shortage(device: torch.device) -> str:
    """Returns why eager form may not fit into this rank's memory, or an empty string; call it between iterations."""
    if device.type == "cpu":
        return ""
    if device.type != "cuda":
        return f"what memory a {device.type} device has left is not known"
    free, _ = torch.cuda.mem_get_info(device)
    stays, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    return describe_shortage(free + torch.cuda.memory_reserved(device) - peak, peak - stays)


def describe_shortage(left: int, taken: int) -> str:
    """Returns why ``left`` bytes, free above the peak, are too few for an iteration that takes
    ``taken`` bytes; or empty.
    """
    if not taken:
        return "how much memory an iteration takes is known after two of them (warmup)"
    if left >= _FACTOR * taken:
        return ""
    return f"{left / 2**30:.1f} GiB of memory are left, and eager form may take {_FACTOR * taken / 2**30:.1f} GiB more"


class EagerChoice:
    """Decides whether the counted step runs compiled code in eager form, the same on all ranks of a job."""

    def __init__(self, asked: bool, device: torch.device) -> None:
        self._asked = asked
        self._device = device
        self._published = False
        self.refused = ""  # why not, though it was asked for

    def publish(self) -> None:
        """Publishes once whether this rank has the memory."""
        if self._asked and not self._published and self._device.type != "cpu":
            self._published = True
            store = job_store()
            if store is not None:
                publish(store, memory_shortage(self._device))

    def decide(self) -> bool:
        """Returns whether to run in eager form; if not although asked for, ``refused`` says why."""
        if self._asked and self._device.type != "cpu":
            store = job_store()
            alone = store is None and not (dist.is_available() and dist.is_initialized())
            if store is not None:
                self.refused = decide_for_all(store, dist.get_world_size())
            else:
                self.refused = memory_shortage(self._device) if alone else "the ranks have no store to agree by"
        return self._asked and not self.refused


def job_store() -> Any:
    """Returns the key-value store that the ranks of the job share; None without one."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    try:
        return dist.distributed_c10d._get_default_store()
    except (RuntimeError, ValueError):
        return None


def publish(store: Any, why: str) -> None:
    """Writes to the store that this rank has the memory, or ``why`` it has not."""
    if why:
        store.set(_SHORT, why)
    else:
        store.add(_FITS, 1)


def decide_for_all(store: Any, world_size: int) -> str:
    """Returns why the counted step does not run in eager form, or empty: the result of the first rank to ask."""
    mine = _GO
    if store.add(_FITS, 0) != world_size:
        mine = store.get(_SHORT).decode() if store.check([_SHORT]) else "not all ranks had said how much memory is left"
    decided = store.compare_set(_DECIDED, "", mine).decode()
    return "" if decided == _GO else str(decided)
