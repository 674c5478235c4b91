"""The examples that profile a model, run as a user does; docs/MODELS.md has what full-sized ones count."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.examples import EXAMPLES

pytestmark = pytest.mark.stack("transformers")

COMMANDS = {
    "bert": ("bert.py", "--size", "tiny", "--batch", "2", "--sequence", "8", "--depth", "1"),
    "t5": ("t5.py", "--size", "tiny", "--source", "8", "--target", "4"),
    "gpt2": ("gpt2.py", "--size", "tiny", "--sequence", "6", "--generate", "3"),
    "vision": ("vision.py", "--model", "lenet5", "--batch", "1024", "--device", "meta"),
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """What each command prints: all run at once, as they mostly import."""
    folder = tmp_path_factory.mktemp("examples")
    jobs = {name: _start(folder, clean_env, *command) for name, command in COMMANDS.items()}
    try:
        yield {name: _output(job) for name, job in jobs.items()}
    finally:
        for job in jobs.values():
            job.kill()
            job.wait()


def _start(folder: Path, env: dict[str, str], script: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / script), *options]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _output(job: subprocess.Popen[str]) -> str:
    out, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    return out


def line(text: str, name: str) -> str:
    """The value of one line of the summary."""
    (found,) = (line for line in text.splitlines() if line.startswith(f"{name}:"))
    return found.partition(":")[2].strip()


def test_bert(printed: dict[str, str]) -> None:
    """Each of 2 x 8 tokens meets two layers; each sentence the pooler."""
    macs = 2 * (2 * 8 * (4 * 128**2 + 2 * 128 * 512 + 2 * 8 * 128) + 128**2)
    assert line(printed["bert"], "fwd MACs per rank") == f"{macs / 1e6:.2f} MMACs"
    assert "BertLayer" in printed["bert"]  # in the tree
    assert "depth 2:" not in printed["bert"]


def test_t5(printed: dict[str, str]) -> None:
    """Heads are 64 wide, whatever the model's width; the head is as wide as the vocabulary."""
    linears, mlp = 128 * 128, 2 * 128 * 512
    encoder = 2 * 8 * (4 * linears + mlp + 2 * 8 * 128)
    decoder = 2 * 4 * (4 * linears + mlp + 2 * 4 * 128)
    crossing = 2 * ((2 * 4 + 2 * 8) * linears + 2 * 4 * 8 * 128)
    macs = encoder + decoder + crossing + 4 * 128 * 32128
    assert line(printed["t5"], "fwd MACs per rank") == f"{macs / 1e6:.2f} MMACs"


def test_gpt2_generates(printed: dict[str, str]) -> None:
    """The prompt's 6 tokens at once, then 2 of the 3 new ones, one by one: the last is not read.  Of a call, only the
    last position goes through the head.
    """
    layers = sum(tokens * 2 * (12 * 128**2 + 2 * length * 128) for tokens, length in ((6, 6), (1, 7), (1, 8)))
    macs = layers + 3 * 128 * 50257
    assert line(printed["gpt2"], "fwd MACs per rank") == f"{macs / 1e6:.2f} MMACs"


def test_vision_on_meta_counts_without_running(printed: dict[str, str]) -> None:
    assert line(printed["vision"], "params of model, exact") == "61,706"
    assert line(printed["vision"], "fwd MACs per rank") == "426.52 MMACs"
    assert line(printed["vision"], "fwd latency") == "n/a"
