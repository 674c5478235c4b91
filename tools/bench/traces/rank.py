"""A data-parallel job of a measured model; after the window of distprof, each rank traces as many steps itself.

python -m bench.traces.rank small --traces FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, schedule

from bench.gpt import Training
from bench.jobs import STEPS
from bench.shapes import SHAPES, TRACED_STEPS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("--traces", type=Path, required=True)
    arguments = parser.parse_args()
    dist.init_process_group("gloo")
    training = Training(SHAPES[arguments.model])
    training.model = DistributedDataParallel(training.model)
    for _ in range(STEPS):
        training.step()
    trace = str(arguments.traces / f"rank{dist.get_rank()}.json.gz")
    window = schedule(wait=0, warmup=1, active=TRACED_STEPS, repeat=1)
    with profile(
        activities=[ProfilerActivity.CPU], schedule=window, on_trace_ready=lambda done: done.export_chrome_trace(trace)
    ) as traced:
        for _ in range(1 + TRACED_STEPS):
            training.step()
            traced.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
