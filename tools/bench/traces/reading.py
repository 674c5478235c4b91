"""Times a merge of what distprof recorded of a job, and the loading of torch.profiler's traces of the same job."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.jobs import distprof_run
from bench.process import TOOLS, Cost, python, warm_ups

_LOADER = TOOLS / "bench" / "traces" / "load_hta.py"


@dataclass(frozen=True)
class Reading:
    """One way to read a job; ``inner_s`` is the time without imports, where it is measured."""

    file_bytes: int
    costs: list[Cost]
    inner_s: list[float]


def read_job(ranks: int, times: int, hta: str) -> tuple[Reading, Reading | None]:
    """Records and traces one job; returns what a merge takes, and what HTA takes; None where it is not installed.

    ``hta`` is a Python that has HolisticTraceAnalysis; empty: this one, if it does.
    """
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        here = Path(folder)
        traces = here / "traces"
        traces.mkdir()
        rank = ("-m", "bench.traces.rank", "small", "--traces", traces)
        python(*distprof_run(str(here), ranks), "--name", "job", *rank)
        return _merged(here / "job", here, times), _loaded(traces, times, hta)


def _merged(run: Path, here: Path, times: int) -> Reading:
    command = ("-m", "distprof", "merge", run, "--no-plots", "--no-page")
    costs = [python(*command, cwd=here) for _ in range(warm_ups(times) + times)][warm_ups(times) :]
    return Reading(_bytes(run / "shards"), costs, [])


def _loaded(traces: Path, times: int, hta: str) -> Reading | None:
    if not hta and find_spec("hta") is None:
        return None
    costs = [python(_LOADER, traces, program=hta) for _ in range(warm_ups(times) + times)][warm_ups(times) :]
    return Reading(_bytes(traces), costs, [json.loads(cost.stdout.splitlines()[-1])["seconds"] for cost in costs])


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
