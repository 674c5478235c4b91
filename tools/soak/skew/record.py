"""Records cases: ``python -m soak.skew.record FOLDER [short]``, with the names of cases on its standard input.

A ``short`` job has nothing after its window: what iterations take without the fault is not measured.

torch is imported once, and each rank is a fork of this process.  A line of JSON on standard output tells of each case:
its name, whether all ranks ended well, and the seconds that it took.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

#: Before torch reads them.  The ring of the flight recorder holds the collectives of a whole job.
os.environ.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")
os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "20000")

import torch

from soak.skew.cases import Case, matching
from soak.skew.faults import Burner
from soak.skew.rank import Job, be_rank

_MAX_SECONDS = 240
#: What ranks import when they train and when a recording begins: imported once, before they are forked.
_IMPORTED_ONCE = (
    "torch._dynamo", "torch.profiler._cupti_monitor", "distprof.api", "distprof.inject.bootstrap",
    "distprof.rank.launches", "distprof.recorder.recorder",
)  # fmt: skip


def main() -> None:
    folder, short = Path(sys.argv[1]), "short" in sys.argv[2:]
    for name in _IMPORTED_ONCE:
        with suppress(ImportError):  # another version of torch
            import_module(name)
    torch.set_num_threads(1)
    burner = Burner()
    for name in sys.stdin.read().split():
        (case,) = matching(name)
        started = time.monotonic()
        well = record(case, folder / name, burner, short=short)
        took = {"name": name, "well": well, "seconds": round(time.monotonic() - started, 1), "load": os.getloadavg()[0]}
        print(json.dumps(took), flush=True)


def record(case: Case, folder: Path, burner: Burner, *, short: bool) -> bool:
    """Runs all ranks of a case; returns whether they ended well."""
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        jobs = [Job(case, rank, port, folder, burner, short) for rank in range(case.ranks)]
        ranks = [_fork(job, server) for job in jobs]
    return _wait(ranks)


def _fork(job: Job, server: socket.socket) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.close(0)
        code = be_rank(job, os.dup(server.fileno()))
    finally:
        os._exit(code)


def _wait(ranks: list[int]) -> bool:
    """Waits for all ranks; kills them when one failed, or the time is up."""
    left, well, until = set(ranks), True, time.monotonic() + _MAX_SECONDS
    while left:
        for rank in list(left):
            ended, status = os.waitpid(rank, os.WNOHANG)
            if ended:
                left.discard(rank)
                well = well and status == 0
        if not well or time.monotonic() > until:
            for rank in left:
                os.kill(rank, signal.SIGKILL)
                os.waitpid(rank, 0)
            return False
        time.sleep(0.02)
    return well


if __name__ == "__main__":
    main()
