"""A rank of a world of any size, in this process: process groups whose collectives go nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def rank_of(world_size: int, rank: int = 0) -> Iterator[None]:
    """As if torchrun had started ``world_size`` ranks, of which we are number ``rank``."""
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
