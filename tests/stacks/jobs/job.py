"""Runs the scenarios of a file one after the other, each as a separate run: ``python job.py FILE OUT RANKS``.

A scenario is a function that trains three steps and returns the number of parameters of the same model built whole; or
this number, and what it counted itself.
One start of the processes serves many, and one import of the stack serves all processes: torchrun's agent, here, forks
its ranks.  Process groups are made anew for each scenario.  What is there between two scenarios is excluded from later
garbage collections: else each would go through all objects of the stack, and copy their pages, in each rank.
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
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import distprof
import distprof.recorder.recorder  # what ranks import when a recording begins: once for all


def main(file: str, out: str, ranks: str) -> None:
    job = runpy.run_path(file)
    gc.collect()
    gc.freeze()
    how = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=int(ranks),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(how, run)(job, out)


def run(job: dict[str, Any], out: str) -> None:
    """In each rank."""
    rank = int(os.environ["RANK"])
    scenarios: dict[str, Any] = job["SCENARIOS"]
    for name, scenario in scenarios.items():
        # Each scenario has its own store: torchrun's cannot be joined a second time.
        store = f"file://{out}/{name}.store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
        torch.manual_seed(0)
        with distprof.record(out, name=name, warmup=0, timed=1):
            whole = scenario()
            dist.barrier()
        if rank == 0:
            parts = whole if isinstance(whole, tuple) else (whole,)
            print("scenario", json.dumps([name, *parts]), flush=True)
        gc.collect()
        gc.freeze()
        job.get("destroy_groups", dist.destroy_process_group)()


if __name__ == "__main__":
    main(*sys.argv[1:])
