"""Merges one large synthetic run by one process that reads and by two, and reads its bytes once for comparison."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.process import Cost, python

JOBS = (1, 2)


@dataclass(frozen=True)
class LargeMerge:
    """``costs``: of a merge without plots, by how many processes read."""

    shard_bytes: int
    bytes_s: list[float]
    costs: dict[int, list[Cost]]


def large_merge(ranks: int, times: int) -> LargeMerge:
    """Writes the run, of 148 kB for each rank, and merges it ``times`` times in each way."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        here, run = Path(folder), Path(folder) / "run"
        python("-m", "bench.synthetic_runs", run, "large", "--ranks", ranks)
        files = sorted(run.glob("shards/*"))
        bytes_s = [_read_once(files) for _ in range(times)]
        command = ("-m", "distprof", "merge", run, "--no-plots", "--jobs")
        costs = {jobs: [python(*command, jobs, cwd=here) for _ in range(times)] for jobs in JOBS}
        return LargeMerge(sum(file.stat().st_size for file in files), bytes_s, costs)


def _read_once(files: Sequence[Path]) -> float:
    """Returns the seconds that one process takes to read all bytes, which are in the disk cache if that is large."""
    began = time.perf_counter()
    for file in files:
        file.read_bytes()
    return time.perf_counter() - began
