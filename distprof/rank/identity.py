"""Who this process is in the job, asked when the first model runs: only then has everything been said.

Does not import torch: a rank that never did is still a rank.
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

from distprof.clock import Anchor
from distprof.devices import device_name
from distprof.records import ALONE, ENVIRONMENT, GROUP, LIMIT, OTHER_GROUP, Header
from distprof.version import __version__

#: Variables in which launchers tell a process its rank and how many there are: torchrun, Open MPI, MPICH, Slurm.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)

_MOST_DIGITS = len(str(LIMIT))


@dataclass(frozen=True)
class Identity:
    """Place of this process among the ranks of the job."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    claim: str = ENVIRONMENT  # what this rests on, see records.CLAIMS


def identify(environment: Mapping[str, str] = os.environ, *, asked: bool = False) -> Identity | None:
    """This process's place: from torch.distributed when it is initialised, else from the environment.

    None for a process that is no rank as far as is known by now: one that ``multiprocessing`` started and that has
    joined no process group (a worker, unless its script has ``asked`` to be recorded), and one of several that nobody
    has told which.
    """
    distributed, told = _joined_group(), _told_by_launcher(environment)
    if distributed is not None:
        place = distributed.get_rank(), distributed.get_world_size()
        contradicted = "RANK" in environment and "WORLD_SIZE" in environment and told != place
        claim = OTHER_GROUP if contradicted else GROUP
    elif multiprocessing.parent_process() is not None and (told or not asked):
        return None
    elif told is not None:
        place, claim = told, ENVIRONMENT
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
    """Record 0 of this process's first shard; ``device`` is the torch.device of its model, if it has one.

    ``launch`` names the launcher that started it, and says when that began.
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
    )


def _joined_group() -> Any:
    """torch.distributed, if this process has joined a process group."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None


def _told_by_launcher(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """(rank, world size) as the launcher said, where it did."""
    for rank_variable, size_variable in _LAUNCHERS:
        if rank_variable in environment and (size_variable in environment or rank_variable == "RANK"):
            rank = _number(environment, rank_variable, 0)
            return rank, max(_number(environment, size_variable, 1), rank + 1)  # it may have said only half of it
    return None


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """``default``, too, for a number of ranks that no job has: what is counted out by it would never end."""
    text = environment.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) < LIMIT else default
