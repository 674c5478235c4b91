"""Who this process is in the job, asked when the first model runs: only then has everything been said."""

from __future__ import annotations

import multiprocessing
import os
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch

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
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not joined and "RANK" in environment and multiprocessing.parent_process() is not None:
        return None
    rank, world_size = _number(environment, "RANK", 0), _number(environment, "WORLD_SIZE", 1)
    if joined:
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return Identity(
        rank=rank,
        world_size=world_size,
        local_rank=_number(environment, "LOCAL_RANK", rank),
        local_world_size=_number(environment, "LOCAL_WORLD_SIZE", world_size),
        node_rank=_number(environment, "GROUP_RANK", 0),
    )


def header(identity: Identity, run_id: str, generation: int, device: torch.device, anchor: Anchor) -> Header:
    """Record 0 of this process's shard."""
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
        device=device.type,
        device_name=_device_name(device),
        writer=distprof.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        wall_ns=anchor.wall_ns,
        mono_ns=anchor.mono_ns,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else default
