"""Ranks that are forks of this process, so that torch is imported once."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable


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
