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

import distprof
from distprof.clock import Anchor
from distprof.records import Header


@dataclass(frozen=True)
class Identity:
    """Place of this process among the ranks of the job."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int


def identify(environment: Mapping[str, str] = os.environ) -> Identity | None:
    """This process's place: from torch.distributed when it is initialised, else from the environment.

    None for a process that is no rank: a worker that a rank started (it inherits RANK) and that joined no process
    group.
    """
    distributed = _joined_group()
    if distributed is None and "RANK" in environment and multiprocessing.parent_process() is not None:
        return None
    rank, world_size = _number(environment, "RANK", 0), _number(environment, "WORLD_SIZE", 1)
    if distributed is not None:
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
    world_size = max(world_size, rank + 1)  # where the environment has only half of it
    return Identity(
        rank=rank,
        world_size=world_size,
        local_rank=_number(environment, "LOCAL_RANK", rank),
        local_world_size=_number(environment, "LOCAL_WORLD_SIZE", world_size),
        node_rank=_number(environment, "GROUP_RANK", 0),
    )


def header(identity: Identity, run_id: str, generation: int, anchor: Anchor, device: Any = None) -> Header:
    """Record 0 of this process's shard; ``device`` is the torch.device of its model, if it has one."""
    torch = sys.modules.get("torch")
    return Header(
        run_id=run_id,
        rank=identity.rank,
        world_size=identity.world_size,
        local_rank=identity.local_rank,
        local_world_size=identity.local_world_size,
        node_rank=identity.node_rank,
        generation=generation,
        host=socket.gethostname(),
        pid=os.getpid(),
        script=sys.argv[0] if sys.argv else "",
        device=device.type if device is not None else "cpu",
        device_name=_device_name(device),
        writer=distprof.__version__,
        python=platform.python_version(),
        torch=torch.__version__ if torch is not None else "",
        wall_ns=anchor.wall_ns,
        mono_ns=anchor.mono_ns,
    )


def _joined_group() -> Any:
    """torch.distributed, if this process has joined a process group."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None


def _device_name(device: Any) -> str:
    if device is not None and device.type == "cuda":
        return str(sys.modules["torch"].cuda.get_device_name(device))
    return platform.processor() or platform.machine()


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else default
