"""Tests of ``distprof peak``: it measures, prints and stores the peak; merge uses it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.forking.server import forking_python
from support.processes import output_of
from support.synthetic import write_run

from distprof.devices import cpu_name
from distprof.peaks.cache import read_peak_cache, write_peak_cache
from distprof.peaks.table import Engine

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

#: A training of matmuls only, which records itself, on one thread.
MATMULS = """
import torch
import distprof

torch.set_num_threads(1)
model = torch.nn.Sequential(*(torch.nn.Linear(256, 256, bias=False) for _ in range(4)))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
x = torch.randn(512, 256)
with distprof.record(name="matmuls", warmup=2, timed=5):
    for _ in range(8):
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
"""


def caches(folder: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(folder / "cache")}


def utilization(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report" / "summary.json").read_text(encoding="utf-8"))["utilization"]
    return found


@pytest.mark.parametrize("seconds", ["inf", "nan", "0", "-1", "1e400", "3601"])
def test_a_time_that_has_no_end_is_told_in_one_sentence(here: Cli, seconds: str) -> None:
    ended = here("peak", f"--seconds={seconds}")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.endswith(": give a number above 0, 3,600 at most\n")


@pytest.mark.parametrize("threads", ["0", "1" + "0" * 30, "x"])
def test_threads_that_nobody_has_are_refused(here: Cli, threads: str) -> None:
    ended = here("peak", "--threads", threads)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "invalid value for '--threads'" in ended.stderr


@pytest.mark.slow
def test_a_peak_is_measured_and_an_mfu_made_of_it(
    cli: Cli, here: Cli, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    ended = cli("peak", "--threads", "1", "--seconds", "0.5", env=caches(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{cpu_name()}: 1 thread, about 0.5 s\n")
    assert (
        len(re.findall(r"^  (?:fp32|bf16|fp16) +[\d.e-]+ TFLOPS  \(matrices of (\d+) x \1\)$", ended.stdout, re.M)) == 3
    )
    assert ended.stdout.endswith(f"kept in {tmp_path}/cache/distprof/peaks.json for later merges\n")
    figures, _ = read_peak_cache(tmp_path / "cache" / "distprof" / "peaks.json")
    assert {(engine.device, engine.threads) for engine in figures} == {(cpu_name(), 1)}

    (tmp_path / "matmuls.py").write_text(MATMULS, encoding="utf-8")
    output_of("matmuls.py", cwd=tmp_path, env=clean_env, executable=forking_python(clean_env))
    run = tmp_path / "runs" / "matmuls"
    merged = here("merge", run, "--full", "--no-plots", env=caches(tmp_path))
    assert merged.returncode == 0, merged.stderr
    used = utilization(run)
    macs = 512 * 256 * 256
    assert (
        used["model_flops_per_rank"] == used["hardware_flops_per_rank"] == 2 * (4 + 4 + 3) * macs
    )  # x has no gradient
    # The measurement is short and the machine may be busy, so only the order of magnitude is checked.
    assert 0.001 < used["mfu"]["job"] < 4
    (peak,) = used["peaks"]
    assert peak["tflops"] == figures[Engine(cpu_name(), 1, "fp32")]
    assert "on 1 thread (measured by 'distprof peak')" in merged.stdout.replace("\n  ", " ")


def test_a_merge_takes_what_was_measured_for_these_threads(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2)
    before = here("merge", run, "--full", "--no-plots", env=caches(tmp_path)).stdout.replace("\n  ", " ")
    assert "run 'distprof peak --threads 2' on that machine and merge again" in before
    write_peak_cache(tmp_path / "cache" / "distprof" / "peaks.json", {Engine("Some CPU", 2, "fp32"): 0.05})
    after = here("merge", run, "--full", "--no-plots", env=caches(tmp_path)).stdout.replace("\n  ", " ")
    assert "peak per rank: 50 GFLOPS in fp32, Some CPU on 2 threads (measured by 'distprof peak')." in after


def test_a_given_peak_goes_first(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=2, chip="NVIDIA H100 80GB HBM3", arithmetic="bf16")
    here("merge", run, "--full", "--no-plots", env=caches(tmp_path))
    by_table = utilization(run)
    ended = here("merge", run, "--full", "--no-plots", "--peak-tflops", 98.94, env=caches(tmp_path))
    given = utilization(run)
    assert given["mfu"]["job"] == pytest.approx(10 * by_table["mfu"]["job"])
    assert "peak per rank: 98.94 TFLOPS in bf16, NVIDIA H100 80GB HBM3 (--peak-tflops)." in ended.stdout


def test_figures_that_cannot_be_read_do_not_stop_a_merge(here: Cli, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "distprof" / "peaks.json"
    path.parent.mkdir(parents=True)
    path.write_text("not ours")
    ended = here("merge", write_run(tmp_path / "run", dp=2), "--full", "--no-plots", env=caches(tmp_path))
    assert ended.returncode == 0
    assert ended.stderr.startswith(f"distprof: {path} holds no measured peaks (")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["peak", "--device", "nonsense"], 2, "distprof: --device nonsense: "),
        (["peak", "--device", "cuda:99"], 2, "distprof: --device cuda:99: "),
        (["peak", "--threads", "0"], 2, "distprof: invalid value for '--threads': "),
        (["merge", "run", "--peak-tflops", "0"], 2, "distprof: peak_tflops is 0.0: give a number from 1e-06 to 1e+09"),
    ],
)
def test_a_wrong_call_is_told_in_one_sentence(
    here: Cli, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    write_run(tmp_path / "run", dp=1)
    ended = here(*arguments, env=caches(tmp_path))
    assert ended.returncode == code
    assert ended.stderr.startswith(sentence)
    assert "Traceback" not in ended.stderr
