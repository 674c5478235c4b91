"""A job that trains for minutes while others keep all processors busy: the hang watch may say nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from distprof.heartbeat.hang_file import read_hangs
from distprof.run_folder import RunFolder
from soak.console_output import Progress
from soak.hangs.run import DISTPROF, STALL_S

_RANKS = 4
_TRAIN = """
import os, sys, time
import torch
import torch.distributed as dist
from torch import nn

until = time.monotonic() + float(sys.argv[1])
dist.init_process_group("gloo")
model = nn.parallel.DistributedDataParallel(nn.Linear(64, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
over = torch.zeros(())
while not over:
    model(torch.ones(8, 64)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    over.fill_(time.monotonic() > until)
    dist.all_reduce(over, op=dist.ReduceOp.MAX)
del model, optimizer
dist.destroy_process_group()
"""
_BUSY = (sys.executable, "-c", "import os; own = os.getppid()\nwhile os.getppid() == own: pass")


def run(minutes: float, progress: Progress) -> bool:
    """Returns whether the job ended well, and no hang was found."""
    progress.say(f"a job that trains for {minutes:g} minutes on a busy machine")
    with tempfile.TemporaryDirectory(prefix="distprof-soak-") as name, ExitStack() as busy:
        folder = Path(name)
        (folder / "train.py").write_text(_TRAIN)
        for _ in range(2 * (os.cpu_count() or 1)):
            busy.callback(_end, subprocess.Popen(_BUSY))
        began = time.monotonic()
        words = ("run", "--nproc", str(_RANKS), "--name", "x", "--stall", str(STALL_S), "train.py", str(minutes * 60))
        ended = subprocess.run(
            [*DISTPROF, *words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        found = read_hangs(RunFolder(folder / "runs" / "x"))
        seconds = time.monotonic() - began
    progress.clear()
    right = not ended.returncode and not found and "stands still" not in ended.stderr
    print(f"a job trained for {seconds:.0f} s on a busy machine, its least limit was {STALL_S:g} s: ", end="")
    print("no false alarm\n" if right else f"WRONG, {[hang.cause for hang in found]}, {ended.stderr[-2000:]}\n")
    return right


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
