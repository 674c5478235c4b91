"""Tests of how far the groups of a process are, with real groups of gloo, some of which are never used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: Prints (enqueued, completed) of each group after each step.
SCRIPT = """
import json, sys, time, warnings
import torch
import torch.distributed as dist
from distprof.probes.collectives.group_status import group_status
from distprof.topology.process_groups import groups

warnings.simplefilter("ignore")
dist.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{sys.argv[1]}")
first, second, third = (dist.new_group([0]) for _ in range(3))

def use(group, times):
    for _ in range(times):
        dist.all_reduce(torch.ones(2), group=group)

found = []
def show():
    for _ in range(300):  # torch says so a moment after the call has returned, or never: the op ended too soon
        if all(one.completed >= one.enqueued for one in group_status(groups())):
            break
        time.sleep(0.01)
    found.append([(one.enqueued, one.completed) for one in group_status(groups())])

show()
use(second, 3)
show()
use(first, 2)
show()
dist.destroy_process_group(second)
use(third, 1)
show()
print(json.dumps(found))
dist.destroy_process_group()
"""


def test_numbers_are_those_of_the_groups_that_were_used(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "x"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert all(enqueued - 1 <= completed <= enqueued for step in found for enqueued, completed in step)
    none, one, two, three = [[enqueued for enqueued, _ in step] for step in found]
    assert none == [-1] * 4
    assert one == [-1, -1, 3, -1]
    assert two == [-1, 2, 3, -1]
    assert three == [-1] * 3  # torch's status still has the group that is gone: as many as the other groups
