"""Whether compiled code may run in eager form for a step: asked for, and with memory enough on every rank.

Eager form keeps what the compiler would have fused away: attention in ops of its own took 2.4 x the compiled peak.  So
a rank has room where twice the memory that an iteration takes beside what stays (parameters, optimizer) is still free.
What each rank has is said before the last iteration that is left unwatched; at the counted one, the first rank to come
there decides for all, so that all do alike and none waits for another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist

#: Of the memory that an iteration takes beside what stays.
_FACTOR = 2.0
_FITS, _SHORT, _DECIDED = (f"distprof/count_eager/{key}" for key in ("fits", "short", "decided"))
_GO = "go"


def lacking(device: torch.device) -> str:
    """Why eager form may not fit into this rank's memory, between two iterations; empty where it does."""
    if device.type == "cpu":
        return ""
    if device.type != "cuda":
        return f"what memory a {device.type} device has left is not known"
    free, _ = torch.cuda.mem_get_info(device)
    stays, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    return shortage(free + torch.cuda.memory_reserved(device) - peak, peak - stays)


def shortage(left: int, taken: int) -> str:
    """Bytes that are free beside the peak, and that an iteration takes beside what stays."""
    if not taken:
        return "how much memory an iteration takes is known after two of them (warmup)"
    if left >= _FACTOR * taken:
        return ""
    return f"{left / 2**30:.1f} GiB of memory are left, and eager form may take {_FACTOR * taken / 2**30:.1f} GiB more"


class EagerChoice:
    """Whether the counted step runs compiled code in eager form, the same on all ranks of a job."""

    def __init__(self, asked: bool, device: torch.device) -> None:
        self._asked = asked
        self._device = device
        self._said = False
        self.refused = ""  # why not, though it was asked for

    def say(self) -> None:
        """Tell the other ranks how this one stands, once."""
        if self._asked and not self._said and self._device.type != "cpu":
            self._said = True
            store = job_store()
            if store is not None:
                tell(store, lacking(self._device))

    def decide(self) -> bool:
        """True: in eager form.  Else, if it was asked for, ``refused`` says why not."""
        if self._asked and self._device.type != "cpu":
            store = job_store()
            alone = store is None and not (dist.is_available() and dist.is_initialized())
            if store is not None:
                self.refused = agreed(store, dist.get_world_size())
            else:
                self.refused = lacking(self._device) if alone else "the ranks have no store to agree by"
        return self._asked and not self.refused


def job_store() -> Any:
    """The key-value store that the ranks of the job share; None without one."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    try:
        return dist.distributed_c10d._get_default_store()
    except (RuntimeError, ValueError):
        return None


def tell(store: Any, why: str) -> None:
    """This rank fits, or ``why`` not."""
    if why:
        store.set(_SHORT, why)
    else:
        store.add(_FITS, 1)


def agreed(store: Any, world_size: int) -> str:
    """Why the job's counted step does not run in eager form, empty where it does: what the first to ask has found."""
    mine = _GO
    if store.add(_FITS, 0) != world_size:
        mine = store.get(_SHORT).decode() if store.check([_SHORT]) else "not all ranks had said how much memory is left"
    decided = store.compare_set(_DECIDED, "", mine).decode()
    return "" if decided == _GO else str(decided)
