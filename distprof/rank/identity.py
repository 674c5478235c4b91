"""The place of this process in the job.  It is asked for when the first model runs, because it is complete only then.

This module does not import torch: a process that never imports it is still a rank.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distprof.clock import Anchor, clock_domain
from distprof.devices import device_name
from distprof.rank.rank_variables import RANK_AND_SIZE
from distprof.records import ALONE, ENVIRONMENT, GROUP, LIMIT, OTHER_GROUP, Header
from distprof.version import __version__

_MOST_DIGITS = len(str(LIMIT))


@dataclass(frozen=True)
class Identity:
    """Place of this process among the ranks of the job."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    claim: str = ENVIRONMENT  # the evidence for it, see records.CLAIMS


def identify(environment: Mapping[str, str] = os.environ, *, asked: bool = False) -> Identity | None:
    """Returns this process's place: from torch.distributed if it is initialised, else from the environment.

    Returns None for a process that is not known to be a rank: one that ``multiprocessing`` started and that has joined
    no process group (a worker, unless its script has ``asked`` to be recorded), and one of several without a number.
    """
    distributed, launched = _joined_group(), _launcher_place(environment)
    if distributed is not None:
        place = distributed.get_rank(), distributed.get_world_size()
        contradicted = "RANK" in environment and "WORLD_SIZE" in environment and launched != place
        claim = OTHER_GROUP if contradicted else GROUP
    elif multiprocessing.parent_process() is not None and (launched or not asked):
        return None
    elif launched is not None:
        place, claim = launched, ENVIRONMENT
    elif _number(environment, "WORLD_SIZE", 1) > 1:
        return None
    else:
        place, claim = (0, 1), ALONE
    rank, world_size = place
    return Identity(
        rank=rank,
        world_size=world_size,
        local_rank=_number(environment, "LOCAL_RANK", rank),
        local_world_size=_number(environment, "LOCAL_WORLD_SIZE", world_size),
        node_rank=_number(environment, "GROUP_RANK", 0),
        claim=claim,
    )


def header(
    identity: Identity, run_id: str, anchor: Anchor, device: Any = None, launch: tuple[str, int] = ("", 0)
) -> Header:
    """Returns record 0 of this process's first shard; ``device`` is the torch.device of its model, if it has one.

    ``launch`` is the id of the launcher that started it, and the wall time at which that launcher started (ns).
    """
    torch = sys.modules.get("torch")
    return Header(
        run_id=run_id,
        rank=identity.rank,
        world_size=identity.world_size,
        local_rank=identity.local_rank,
        local_world_size=identity.local_world_size,
        node_rank=identity.node_rank,
        claim=identity.claim,
        launch=launch[0],
        launched_ns=launch[1],
        host=socket.gethostname(),
        pid=os.getpid(),
        script=sys.argv[0] if sys.argv else "",
        device=device.type if device is not None else "cpu",
        device_name=device_name(device),
        writer=__version__,
        python=platform.python_version(),
        torch=torch.__version__ if torch is not None else "",
        wall_ns=anchor.wall_ns,
        mono_ns=anchor.mono_ns,
        clock_domain=clock_domain(),
    )


def _joined_group() -> Any:
    """Returns torch.distributed if this process has joined a process group."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None


def _launcher_place(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Returns (rank, world size) from the launcher's variables, None without any."""
    for rank_variable, size_variable in RANK_AND_SIZE:
        if rank_variable in environment and (size_variable in environment or rank_variable == "RANK"):
            rank = _number(environment, rank_variable, 0)
            return rank, max(_number(environment, size_variable, 1), rank + 1)  # one of the two may be missing
    return None


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """Returns the number in a variable, or ``default`` if it is missing, no number, or above the limit of ranks."""
    text = environment.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) < LIMIT else default
