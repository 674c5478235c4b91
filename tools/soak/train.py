"""A small job that the soak kills; each of its ranks logs every finished iteration, in its own file.

The log is flushed and not synced, like the shard.  Its first line is the process id, written before torch loads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

LINE = "{:>8}\n"


def main() -> None:
    log = os.open(Path(f"finished{os.environ['RANK']}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, LINE.format(os.getpid()).encode())

    import torch
    from torch import distributed, nn

    distributed.init_process_group("gloo")
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    ranks = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ranks.parameters(), lr=0.01)
    for iteration in range(int(sys.argv[1])):
        ranks(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        os.write(log, LINE.format(iteration).encode())
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
