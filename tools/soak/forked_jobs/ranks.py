"""Ranks that are forks of this process, so that torch is imported once."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import distprof


@dataclass(frozen=True)
class RecordedJob:
    """A small training on gloo, whose ranks record themselves.

    ``build`` gets the name of a run and a rank, and returns the rank's model; the process group is there.
    """

    ranks: int
    warmup: int
    timed: int
    batch: tuple[int, int]  # shape of the inputs
    build: Callable[[str, int], nn.Module]

    def main(self) -> None:
        """Records the runs that the command line names after their folder; prints the name of each one."""
        folder, names = Path(sys.argv[1]), sys.argv[2:]
        torch.set_num_threads(1)
        for name in names:
            if not run_ranks(self.ranks, partial(self._train, folder, name)):
                sys.exit(f"{name}: not all ranks ended well")
            print(name, flush=True)

    def _train(self, folder: Path, name: str, rank: int) -> None:
        with distprof.record(out=folder, name=name, warmup=self.warmup, timed=self.timed):
            distributed: Any = dist  # type checkers miss what it exports
            distributed.init_process_group("gloo", rank=rank, world_size=self.ranks)
            torch.manual_seed(0)
            model = self.build(name, rank)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            for _ in range(self.warmup + 2 + self.timed + 1):
                optimizer.zero_grad()
                model(torch.randn(*self.batch)).square().mean().backward()
                optimizer.step()
            distributed.destroy_process_group()


def run_ranks(ranks: int, train: Callable[[int], None]) -> bool:
    """Calls ``train`` with its rank in each of so many processes, in the environment of torchrun; returns whether all
    of them ended well.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            _be_rank(rank, ranks, port, train)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]  # all of them, also after one that failed
    return not any(ended)


def _be_rank(rank: int, ranks: int, port: int, train: Callable[[int], None]) -> None:
    code = 1
    try:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
            GROUP_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
        train(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
