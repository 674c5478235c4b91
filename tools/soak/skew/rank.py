"""One rank of a job, in a fork of a process that has imported all that it needs."""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import distprof
from soak.skew.architectures import Iteration, set_up
from soak.skew.cases import RUN, SWITCHED, Case
from soak.skew.faults import Burner, Fault

WARMUP, TIMED = 3, 10
ITERATIONS = WARMUP + 1 + TIMED + 2
#: After them come blocks of iterations with the fault and without it in turn, which are not recorded.
BLOCKS, BLOCK = 6, 5


@dataclass(frozen=True)
class Job:
    """A case as one of its ranks runs it; ``short``: nothing follows the window."""

    case: Case
    rank: int
    port: int  # of the store
    folder: Path
    burner: Burner
    short: bool


def be_rank(job: Job, listening: int) -> int:
    """Runs a job's rank; returns the exit code.  Rank 0 serves the store on the socket ``listening``."""
    log = os.open(job.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(_variables(job.case, job.rank, job.port))
    try:
        with distprof.record(out=job.folder, name=RUN, warmup=WARMUP, timed=TIMED):
            _train(job, listening)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _variables(case: Case, rank: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    ranks = str(case.ranks)
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks,
        "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def _distributed() -> Any:
    """Returns torch.distributed, in which type checkers miss the stores."""
    return dist


def _train(job: Job, listening: int) -> None:
    case, rank = job.case, job.rank
    served = {"is_master": True, "master_listen_fd": listening} if rank == 0 else {}
    store = _distributed().TCPStore("127.0.0.1", job.port, case.ranks, wait_for_workers=False, **served)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=case.ranks)
    torch.manual_seed(0)
    random.seed(0)
    fault = Fault(case, rank, job.burner)
    iteration = set_up(fault, ITERATIONS + BLOCKS * BLOCK)
    with fault.throughout():
        for number in range(ITERATIONS):
            fault.begin(number)
            iteration()
    (job.folder / f"lost{rank}.json").write_text(json.dumps(fault.lost_ns), encoding="utf-8")
    if case.fault in SWITCHED and not job.short:
        blocks = [_block(fault, iteration, active=number % 2 == 0) for number in range(BLOCKS)]
        if rank == 0:
            (job.folder / "blocks.json").write_text(json.dumps(blocks), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _block(fault: Fault, iteration: Iteration, *, active: bool) -> int:
    """Runs some iterations with the fault or without it; returns the ns of one."""
    fault.active = active
    with fault.throughout() if active else nullcontext():
        dist.barrier()
        started = time.perf_counter_ns()
        for _ in range(BLOCK):
            fault.begin(ITERATIONS)
            iteration()
        dist.barrier()
        return (time.perf_counter_ns() - started) // BLOCK
