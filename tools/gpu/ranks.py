"""Jobs of several processes on this device, started by ``distprof run``: NCCL, DDP and FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

import distprof
from distprof.merge.report import Report
from gpu.finding import Finding, equal, needs_gpu
from gpu.rank import ITERATIONS, PARAMETERS

_SCRIPT = Path(__file__).with_name("rank.py")
#: What runs the jobs.
PYTHON = sys.executable


@dataclass(frozen=True)
class _Job:
    name: str
    ranks: int
    backend: str
    wrap: str
    options: tuple[str, ...] = ()


_JOBS = (
    _Job("NCCL, one rank, DDP", 1, "nccl", "ddp"),
    _Job("NCCL with --collective-timing, one rank, DDP", 1, "nccl", "ddp", ("--collective-timing",)),
    _Job("gloo, two ranks, DDP", 2, "gloo", "ddp"),
    _Job("gloo, two ranks, FSDP2", 2, "gloo", "fsdp2"),
)


def ranks(device: torch.device) -> list[Finding]:
    rows = []
    for job in _JOBS:
        if job.backend == "nccl" and device.type != "cuda":
            rows += needs_gpu(job.name)
        else:
            rows += _check(job, device)
    return rows


def _check(job: _Job, device: torch.device) -> list[Finding]:
    with tempfile.TemporaryDirectory(prefix="distprof-gpu-", ignore_cleanup_errors=True) as folder:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job.ranks))
        plain = _run(launcher, job, device, folder)
        options = ("--out", folder, "--name", "job", "--timed", "5", "--warmup", "2", *job.options)
        recorded = _run(("-m", "distprof", "run", "--nproc", str(job.ranks), *options), job, device, folder)
        report = distprof.load(Path(folder) / "job").report
    return [
        equal(f"{job.name}: losses are those under torchrun, bit for bit", recorded == plain, True),
        equal(f"{job.name}: recorded ranks", report.run.ranks, tuple(range(job.ranks))),
        equal(f"{job.name}: parameters of the model", sum(report.model.params_by_kind.values()), PARAMETERS),
        *_collectives(job, report),
    ]


def _collectives(job: _Job, report: Report) -> list[Finding]:
    found = report.collectives
    if not found.rows:
        return [Finding(f"{job.name}: collectives", f"none. {found.why_not}")]
    seen = ", ".join(f"{row.op} {row.calls:g}/iteration, transfer {_ms(row.transfer_ns)}" for row in found.rows)
    return [Finding(f"{job.name}: collectives", seen)]


def _ms(nanoseconds: float | None) -> str:
    return "n/a" if nanoseconds is None else f"{nanoseconds / 1e6:.3f} ms"


def _run(launcher: tuple[str, ...], job: _Job, device: torch.device, folder: str) -> list[float]:
    """Returns the losses of rank 0.  Raises RuntimeError with the job's output if it fails."""
    losses = Path(folder) / "losses.json"
    command = [PYTHON, *launcher, _SCRIPT, device.type, job.backend, job.wrap, losses]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if ended.returncode:
        raise RuntimeError(f"{job.name} ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    found: list[float] = json.loads(losses.read_text(encoding="utf-8"))
    if len(found) != ITERATIONS:
        raise RuntimeError(f"{job.name} trained {len(found)} iterations of {ITERATIONS}")
    return found
