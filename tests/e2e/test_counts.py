"""Forward work of the examples, against torch's own FlopCounterMode, run by a script of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.examples import EXAMPLES
from support.jobs import RunJob

#: Runs the MoE example on one rank with FlopCounterMode around the model's first forward.
COUNT = """
import runpy, sys
import moe_model
from torch.utils.flop_counter import FlopCounterMode
forward, done = moe_model.GPT.forward, []
def counted(self, *args, **kwargs):
    if done:
        return forward(self, *args, **kwargs)
    done.append(True)
    with FlopCounterMode(display=False) as counter:
        output = forward(self, *args, **kwargs)
    print("flops", counter.get_total_flops())
    return output
moe_model.GPT.forward = counted
sys.argv = ["train_moe.py", "--steps", "1"]
runpy.run_path(EXAMPLE, run_name="__main__")
"""


@pytest.fixture(scope="module")
def counted_by_torch(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> int:
    script = tmp_path_factory.mktemp("count") / "count.py"
    script.write_text(f"EXAMPLE = {str(EXAMPLES / 'train_moe.py')!r}\n{COUNT}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**clean_env, "PYTHONPATH": str(EXAMPLES)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("flops ")))


@pytest.mark.parametrize(("nproc", "layout"), [(1, []), (4, ["--tp", "2", "--ep", "4"])])
def test_forward_macs_equal_flop_counter_mode(
    record_job: RunJob, counted_by_torch: int, nproc: int, layout: list[str]
) -> None:
    """On one rank, and summed over four: tensor parallel halves matmuls and expert parallel splits tokens, so the ranks
    together do the model's work once."""
    job = record_job("train_moe.py", "--steps", "2", *layout, nproc=nproc, ours=["--warmup", "0", "--timed", "1"])
    assert job.code == 0, job.stderr
    report = job.merge("--no-plots")
    flops = sum(row["fwd_macs"] for row in report["ranks"]) * 2
    assert flops == counted_by_torch
