"""The first commands of the README lead from a clone to the verdict on a script, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent

#: A stranger's script: nothing in it knows of distprof, and a module of rank 1 is slow.  It sleeps at its end because
#: torch aborts a process that ends while gloo's thread still lets go of the last all-reduce.
SCRIPT = """
import time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

class Head(nn.Linear):
    def forward(self, x):
        if dist.get_rank() == 1:
            time.sleep(0.1)
        return super().forward(x)

dist.init_process_group("gloo")
model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), Head(16, 4)))
optimizer = torch.optim.AdamW(model.parameters())
for step in range(20):
    optimizer.zero_grad()
    model(torch.randn(8, 16)).square().mean().backward()
    optimizer.step()
print("trained")
time.sleep(0.2)
dist.destroy_process_group()
"""


def first_commands() -> list[str]:
    """Returns the lines of the first block of commands below the README's heading "Install"."""
    found = re.search(r"^## Install$.*?^```sh\n(.*?)^```$", (HOUSE / "README.md").read_text("utf-8"), re.M | re.S)
    assert found
    return found[1].splitlines()


@pytest.fixture
def offline(clean_env: dict[str, str]) -> dict[str, str]:
    """Returns an environment in which pip installs the clone alone, and its dependencies are those of these tests.

    Nothing is drawn: that is tested elsewhere, and takes seconds.
    """
    packages = [path for path in sys.path if path.endswith("site-packages")]
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    return {**clean_env, **pip, "PYTHONPATH": os.pathsep.join(packages), "DISTPROF_PLOTS": "0"}


@pytest.mark.slow
def test_five_commands_lead_to_the_verdict(tmp_path: Path, offline: dict[str, str]) -> None:
    if not (HOUSE / ".git").exists():
        pytest.skip("this is no clone: the README's first command has nothing to clone")
    commands = [re.sub(r"\bURL\b", HOUSE.as_uri(), command) for command in first_commands()]
    assert [command.split()[0] for command in commands] == ["git", "python3", ".", "pip", "distprof"]
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    walk = subprocess.run(
        ["bash", "-e", "-c", "\n".join([*commands, "command -v distprof"])],
        cwd=tmp_path,
        env=offline,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert walk.returncode == 0, walk.stdout + walk.stderr
    assert "trained" in walk.stdout
    assert "2 of 2 ranks recorded" in walk.stdout
    assert re.search(r"^slowest: rank 1, forward of 2\b", walk.stdout, re.MULTILINE), walk.stdout
    assert walk.stdout.endswith(f"\n{tmp_path}/env/bin/distprof\n"), "the command of the clone"
