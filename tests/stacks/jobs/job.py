"""Runs the scenarios of a file one after the other, each a run of its own: ``torchrun ... job.py FILE OUT``.

A scenario is a function that trains two steps and returns the number of parameters of the same model built whole.  One
start of the processes, and of what they import, serves many; process groups are made anew for each.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
from typing import Any

import torch
import torch.distributed as dist

import distprof


def main(file: str, out: str) -> None:
    rank = int(os.environ["RANK"])
    job = runpy.run_path(file)
    scenarios: dict[str, Any] = job["SCENARIOS"]
    for name, scenario in scenarios.items():
        # A store of its own: torchrun's cannot be joined a second time.
        store = f"file://{out}/{name}.store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
        torch.manual_seed(0)
        with distprof.record(out, name=name, warmup=0, timed=1):
            whole = scenario()
            dist.barrier()
        if rank == 0:
            print("scenario", json.dumps([name, whole]), flush=True)
        gc.collect()
        job.get("destroy_groups", dist.destroy_process_group)()


if __name__ == "__main__":
    main(*sys.argv[1:])
