"""One rank of a job, in a fork of a process that has imported all that it needs."""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import distprof
from soak.skew.architectures import set_up
from soak.skew.cases import RUN, Case
from soak.skew.faults import Burner, Fault

WARMUP, TIMED = 3, 10
ITERATIONS = WARMUP + 1 + TIMED + 2


def be_rank(case: Case, rank: int, listening: int, port: int, folder: Path, burner: Burner) -> int:
    """Runs the job as ``rank``; returns the exit code.  Rank 0 serves the store on the socket ``listening``."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(_variables(case, rank, port))
    try:
        with distprof.record(out=folder, name=RUN, warmup=WARMUP, timed=TIMED):
            _train(case, rank, listening, port, folder, burner)
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


def _train(case: Case, rank: int, listening: int, port: int, folder: Path, burner: Burner) -> None:
    served = {"is_master": True, "master_listen_fd": listening} if rank == 0 else {}
    store = _distributed().TCPStore("127.0.0.1", port, case.ranks, wait_for_workers=False, **served)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=case.ranks)
    torch.manual_seed(0)
    random.seed(0)
    fault = Fault(case, rank, burner)
    iteration = set_up(fault, ITERATIONS)
    with fault.throttled():
        for number in range(ITERATIONS):
            fault.begin(number)
            iteration()
    (folder / f"lost{rank}.json").write_text(json.dumps(fault.lost_ns), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()
