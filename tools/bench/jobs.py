"""Whole jobs, under torchrun and under ``distprof run``: the time to start and the memory of a rank."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from bench.process import TOOLS, Cost, alternately, python, warm_ups

#: More steps than the default window has: warm-up, the counted step and the timed ones.
STEPS = 20


def start_up(pairs: int, ranks: int, content: str) -> list[tuple[Cost, Cost]]:
    """Returns the cost of a job with a script of that content: (torchrun, distprof run)."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        script = Path(folder) / "script.py"
        script.write_text(content, encoding="utf-8")
        return alternately(pairs, (*torchrun(ranks), script), (*distprof_run(folder, ranks), script), Path(folder))


def resident(pairs: int, model: str) -> list[tuple[int, int]]:
    """Returns the resident bytes of a rank after :data:`STEPS` steps: (torchrun, distprof run with its defaults)."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        job = ("-m", "bench.rank", model, "--steps", STEPS)
        found = alternately(pairs, (*torchrun(1), *job), (*distprof_run(folder, 1), *job), TOOLS)
    return [(_printed_number(plain), _printed_number(recorded)) for plain, recorded in found]


def help_time(times: int) -> list[Cost]:
    """Returns the cost of ``distprof --help``."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        unkept = warm_ups(times)
        return [python("-m", "distprof", "--help", cwd=Path(folder)) for _ in range(unkept + times)][unkept:]


def torchrun(ranks: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))


def distprof_run(out: str, ranks: int) -> tuple[str, ...]:
    return ("-m", "distprof", "run", "--out", out, "--nproc", str(ranks))


def _printed_number(job: Cost) -> int:
    found = re.search(r"^resident: (\d+)$", job.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the job did not say what it holds: {job.stdout!r}")
    return int(found[1])
