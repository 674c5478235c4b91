"""Makes this process a rank of a world of any size, with process groups whose collectives do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def rank_of(world_size: int, rank: int = 0) -> Iterator[None]:
    """Makes this process number ``rank`` of ``world_size`` ranks inside this context."""
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
